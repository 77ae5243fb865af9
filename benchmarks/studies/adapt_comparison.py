"""Compare transfer methods with those of ADAPT on the same frozen features.

ADAPT is described by de Mathelin et al. 2021, https://arxiv.org/abs/2107.03049.

    pip install --no-deps --target /tmp/adapt adapt cvxopt scikeras
    PYTHONPATH=.:/tmp/adapt python -m benchmarks.studies.adapt_comparison --seeds 5

The data are digits as in :mod:`benchmarks.studies.source_methods`: the source upright, the target rotated, features
of the built-in backbone. Both sides train a head with one hidden layer of 64 units for 10 epochs with Adam at 1e-3,
batches of 32 and λ = 1. Kernel mean matching and boosting train a linear head: ADAPT a logistic regression until it
converges, unfreeze 30 epochs at 1e-2. The output is the accuracy on the target's test images, and the distance
between the two sets of weights of kernel mean matching.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.source_methods import deal, interval

LABELS, EPOCHS, UNITS, RATE, BATCH = 5, 10, 64, 1e-3, 32
LINEAR_RATE, LINEAR_EPOCHS = 1e-2, 30

Data = dict[str, np.ndarray]


def features_of(bench: Any) -> Data:
    """Frozen features and labels of both sides."""
    source = bench.source
    made: Data = {}
    for side, activations, split in (
        ("source", source.activations, "train"),
        ("target", bench.activations, "train"),
        ("test", bench.activations, "test"),
    ):
        made[side] = np.concatenate(list(activations.chunks(split, 0))).astype(np.float32)
    made["source labels"] = source.labels("train")
    for side, split in (("target labels", "train"), ("test labels", "test")):
        made[side] = bench.task.split(split).labels.astype(np.int32)
    return made


def ours(bench: Any, method: str, units: int, seed: int, **params: Any) -> float:
    """Test accuracy of an unfreeze trial on frozen features."""
    from trainables.methods.methods import begin
    from trainables.training.trial_config import TrialConfig

    rate, epochs = (RATE, EPOCHS) if units else (LINEAR_RATE, LINEAR_EPOCHS)
    params = {"unfreeze_depth": 0, "learning_rate": rate, "head_units": units, **params}
    training = begin(TrialConfig(method, params, epochs=epochs, batch_size=BATCH, seed=seed), bench)
    while not training.done:
        training.run_epoch()
    said = training.predict_current("test").argmax(axis=1)
    training.release()
    return float((said == bench.truth).mean())


def deep_peer(kind: str, data: Data, seed: int) -> float:
    """ADAPT's DeepCORAL or DANN, without labels of the target."""
    import keras
    from adapt.feature_based import DANN, DeepCORAL

    keras.utils.set_random_seed(seed)
    width, classes = data["source"].shape[1], int(data["source labels"].max()) + 1
    encoder = keras.Sequential([keras.Input((width,)), keras.layers.Dense(UNITS, activation="relu")])
    task = keras.Sequential([keras.Input((UNITS,)), keras.layers.Dense(classes, activation="softmax")])
    options: dict[str, Any] = {
        "encoder": encoder, "task": task, "Xt": data["target"], "lambda_": 1.0, "loss": "categorical_crossentropy",
        "optimizer": keras.optimizers.Adam(RATE), "random_state": seed, "verbose": 0,
    }  # fmt: skip
    if kind == "dann":
        options["discriminator"] = keras.Sequential(
            [
                keras.Input((UNITS,)),
                keras.layers.Dense(64, activation="relu"),
                keras.layers.Dense(1, activation="sigmoid"),
            ]
        )
    model = (DANN if kind == "dann" else DeepCORAL)(**options)
    model.fit(
        data["source"], np.eye(classes)[data["source labels"]], epochs=EPOCHS, batch_size=BATCH, verbose=0
    )
    return accuracy(model.predict(data["test"]).argmax(axis=1), data)


def kmm_peer(data: Data) -> tuple[float, float, float]:
    """Accuracy with ADAPT's weights from kernel mean matching, accuracy with ours, and the largest difference.

    Both use the same logistic regression.
    """
    from adapt.instance_based import KMM
    from sklearn.linear_model import LogisticRegression

    from trainables.methods.importance_weights import kmm_problem, median_gamma, solve_kmm, standardised

    x, z = standardised(data["source"], data["target"])
    gamma = median_gamma(x, z)
    model = KMM(
        LogisticRegression(max_iter=2000), Xt=z, B=10.0, kernel="rbf", gamma=gamma, verbose=0, random_state=0
    )
    model.fit(x, data["source labels"])
    mine = solve_kmm(*kmm_problem(x, z, gamma), 10.0)
    theirs = np.asarray(model.predict_weights())
    _, test = standardised(data["source"], np.concatenate([data["target"], data["test"]]))
    test = test[len(z) :]
    same = LogisticRegression(max_iter=2000).fit(x, data["source labels"], sample_weight=mine)
    found = (accuracy(said.predict(test), data) for said in (model, same))
    return (*found, float(np.abs(mine - theirs).max()))


def logistic_regression(few: Data) -> float:
    """Accuracy of scikit-learn's logistic regression on the target's few labels alone."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000).fit(few["target"], few["target labels"])
    return accuracy(model.predict(few["test"]), few)


def boosting_peer(data: Data, few: Data, seed: int) -> float:
    """ADAPT's TrAdaBoost with logistic regressions."""
    from adapt.instance_based import TrAdaBoost
    from sklearn.linear_model import LogisticRegression

    model = TrAdaBoost(
        LogisticRegression(max_iter=1000), n_estimators=EPOCHS, Xt=few["target"], yt=few["target labels"], verbose=0,
        random_state=seed,
    )  # fmt: skip
    model.fit(data["source"], data["source labels"])
    return accuracy(np.asarray(model.predict(data["test"])).ravel(), data)


def accuracy(said: np.ndarray, data: Data) -> float:
    """Share of correct predictions."""
    return float((said == data["test labels"]).mean())


def contenders(blind: Any, data: Data, seeing: Any, few: Data, seed: int) -> dict[str, Callable[[], float]]:
    """The measurements by name. ``blind`` has no labels of the target, ``seeing`` has a few."""
    return {
        "source only, ours": lambda: ours(blind, "source", UNITS, seed),
        "coral, ours": lambda: ours(blind, "align", UNITS, seed, alignment="coral", alignment_weight=1.0),
        "coral, ADAPT": lambda: deep_peer("coral", data, seed),
        "dann, ours": lambda: ours(blind, "align", UNITS, seed, alignment="dann", alignment_weight=1.0),
        "dann, ADAPT": lambda: deep_peer("dann", data, seed),
        "kmm, ours": lambda: ours(blind, "reweight", 0, seed, weighting="kmm"),
        "kmm, ADAPT": lambda: kmm_peer(data)[0],
        "kmm, our weights in their regression": lambda: kmm_peer(data)[1],
        "kmm, difference of weights": lambda: kmm_peer(data)[2],
        "target only, ours": lambda: ours(seeing, "finetune", 0, seed),
        "target only, logistic regression": lambda: logistic_regression(few),
        "boosting, ours": lambda: ours(seeing, "reweight", 0, seed, weighting="tradaboost"),
        "boosting, ADAPT": lambda: boosting_peer(data, few, seed),
    }


def main() -> None:
    """Print one line per contender."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--angle", type=float, default=45.0)
    options.add_argument("--only", default="", help="only contenders whose names begin with this")
    asked = options.parse_args()
    found: dict[str, list[float]] = {}
    for seed in range(asked.seeds):
        with tempfile.TemporaryDirectory() as place:
            blind, data = opened(Path(place) / "none", seed, asked.angle, 0)
            seeing, few = opened(Path(place) / "few", seed, asked.angle, LABELS)
            for name, run in contenders(blind, data, seeing, few, seed).items():
                if not name.startswith(asked.only):
                    continue
                value = run()
                found.setdefault(name, []).append(value)
                print(json.dumps({"seed": seed, "contender": name, "value": value}), flush=True)
    for name, values in found.items():
        print(f"{name:38} {np.mean(values):.4f} ± {interval(values):.4f}")


def opened(folder: Path, seed: int, angle: float, labels: int) -> tuple[Any, Data]:
    """A workbench on newly divided digits, and its features."""
    from trainables.backbones.spec import BackboneSpec
    from trainables.data.task import open_task
    from trainables.modalities.image.backbones import load
    from trainables.modalities.image.datasets import prepare
    from trainables.training.workbench import Workbench

    folder.mkdir()
    load(BackboneSpec("print")).save(folder / "backbone.keras")
    made = deal(folder, seed, angle, labels)
    tasks = {
        name: prepare(str(made[name]), image_size=(32, 32), directory=folder / f"{name}-task").directory
        for name in ("source", "target")
    }
    bench = Workbench.open(
        folder / "backbone.keras", tasks["target"], source=lambda: tasks["source"], unlabelled=not labels
    )
    bench.truth = open_task(tasks["target"]).split("test").labels  # type: ignore[attr-defined]
    data = features_of(bench)
    data["test labels"] = bench.truth  # type: ignore[attr-defined]
    return bench, data


if __name__ == "__main__":
    main()
