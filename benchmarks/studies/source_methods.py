"""Measure what a source dataset is worth: upright digits are the source, rotated ones the target, over several seeds.

    python -m benchmarks.studies.source_methods --seeds 5 --trials 6 --epochs 12 --angle 45 --out results.jsonl

Each seed divides scikit-learn's digits anew: half of them upright (source), half rotated (target). ``--labels`` images
per class of the target are used for training and as many for validation. With ``--labels 0`` all images are used, and
only the upper bound sees their labels. All methods get the same number of random configurations of their own full
space, without augmentation, whose rotations would solve the task. The best configuration by the method's own selection
is evaluated on the target's test images. The target alone has fewer batches per epoch and therefore gets more epochs,
as this baseline does in a search. The upper bound has all labels of the target's training and validation images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

UNTUNED = {"unfreeze_depth": 2, "learning_rate": 3e-3, "head_units": 64, "alignment_weight": 1.0}
"""The configuration of all methods with ``--untuned``."""

ALIGNMENTS = ("coral", "mmd", "dann")
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


def deal(folder: Path, seed: int, angle: float, labels: int, most: int = 1000) -> dict[str, Path]:
    """Write image folders: source, target (``labels`` training images per class; 0: all) and upper bound."""
    digits = load_digits()
    generator = np.random.default_rng(seed)
    made = {name: folder / name for name in ("source", "target", "oracle")}
    for digit in range(10):
        rows = generator.permutation(np.flatnonzero(digits.target == digit))
        half = len(rows) // 2
        sides = (("source",), rows[:half][:most], 0.0), (("target", "oracle"), rows[half:][:most], angle)
        for names, part, turned in sides:
            ends = np.cumsum([int(len(part) * share) for share in SHARES.values()])
            for split, group in zip(SHARES, np.split(part, ends[:-1]), strict=True):
                for place, row in enumerate(group):
                    for name in names:
                        if name == "target" and labels and split != "test" and place >= labels:
                            continue
                        path = made[name] / split / str(digit)
                        path.mkdir(parents=True, exist_ok=True)
                        picture(digits.images[row], turned).save(path / f"{row}.png")
    return made


def picture(pixels: np.ndarray, angle: float) -> Image.Image:
    """An 8×8 digit enlarged to 32×32 and rotated."""
    image = Image.fromarray((pixels * 255 / 16).astype(np.uint8)).resize((32, 32), Image.Resampling.BILINEAR)
    return image.rotate(angle, resample=Image.Resampling.BILINEAR)


def rivals(unlabelled: bool) -> dict[str, tuple[str, dict[str, Any]]]:
    """Methods and the fixed parameters of their spaces, by the name in the table."""
    weightings = ("odds", "kmm") if unlabelled else ("odds", "kmm", "tradaboost")
    return {
        **({} if unlabelled else {"target only": ("finetune", {})}),
        "source only": ("source", {}),
        **{f"reweight, {w}": ("reweight", {"weighting": w}) for w in weightings},
        **{f"align, {a}": ("align", {"alignment": a}) for a in ALIGNMENTS},
        "oracle": ("finetune", {}),
    }


def configurations(
    method: str, fixed: dict[str, Any], blocks: int, unlabelled: bool, trials: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Random configurations of the method's full space. Shared parameters have the same values for all methods."""
    import optuna

    from search.config.ranges import Choice
    from search.config.space import Space, make_space

    whole = make_space("full", blocks, method, unlabelled=unlabelled)
    left_out = (
        *("augmentation_strength", "horizontal_flip", "head_init"),
        *("l2sp", "layer_lr_decay", "gradual_unfreezing"),
    )
    ranges = {
        n: Choice((fixed[n],)) if n in fixed else r for n, r in whole.ranges.items() if n not in left_out
    }
    space = Space(ranges, blocks, method)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(trials):
        yield space.suggest(study.ask())


def best_of(
    bench: Any, method: str, params: Iterator[dict[str, Any]], epochs: int, seed: int
) -> tuple[float, dict[str, Any], list[Any]]:
    """Test accuracy of the best configuration by its own selection, that configuration, and all results."""
    from trainables.errors import Diverged
    from trainables.methods.methods import begin
    from trainables.training.trial_config import TrialConfig

    test = bench.truth.split("test").labels
    metric = "val_loss" if bench.unlabelled else "val_accuracy"
    found = []
    for each in params:
        training = begin(TrialConfig(method, each, epochs=epochs, seed=seed, metric=metric), bench)
        try:
            while not training.done:
                training.run_epoch()
            accuracy = float((training.predict("test").argmax(axis=1) == test).mean())
            found.append(((training.best.val_accuracy, training.best.val_loss), accuracy, each))
        except Diverged:
            continue
        finally:
            training.release()
    chosen = min(found, key=lambda one: (0.0 if bench.unlabelled else -one[0][0], one[0][1]))
    return chosen[1], chosen[2], [(*selection, accuracy) for selection, accuracy, _ in found]


def main() -> None:
    """Print one line per method and seed, and the table."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--first-seed", type=int, default=0)
    options.add_argument("--trials", type=int, default=6)
    options.add_argument("--untuned", action="store_true", help="use one configuration for all methods")
    options.add_argument("--epochs", type=int, default=12)
    options.add_argument("--angle", type=float, default=45.0)
    options.add_argument("--labels", type=int, default=5, help="labels of the target per class; 0 for none")
    options.add_argument(
        "--images", type=int, default=1000, help="most of each class in each dataset, all splits"
    )
    options.add_argument("--backbone", default="print")
    options.add_argument("--out", type=Path)
    asked = options.parse_args()

    from search.config.choices import baseline_epoch_factor
    from trainables.backbones.spec import BackboneSpec
    from trainables.data.task import open_task
    from trainables.modalities.image.backbones import load
    from trainables.modalities.image.datasets import prepare
    from trainables.training.workbench import Workbench

    results: dict[str, list[float]] = {}
    for seed in range(asked.first_seed, asked.first_seed + asked.seeds):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            backbone = load(BackboneSpec(asked.backbone))
            backbone.save(folder / "backbone.keras")
            tasks = {
                name: prepare(
                    str(data), image_size=backbone.input_size, directory=folder / f"{name}-task"
                ).directory
                for name, data in deal(folder, seed, asked.angle, asked.labels, asked.images).items()
            }
            unlabelled = not asked.labels
            benches = {
                name: Workbench.open(
                    folder / "backbone.keras",
                    tasks[name],
                    source=lambda tasks=tasks: tasks["source"],
                    unlabelled=unlabelled and name == "target",
                )
                for name in ("target", "oracle")
            }
            for name, (method, fixed) in rivals(unlabelled).items():
                began = time.monotonic()
                bench = benches["oracle" if name == "oracle" else "target"]
                bench.truth = open_task(tasks["target"])
                hidden = bench.unlabelled
                params = configurations(method, fixed, len(backbone.blocks), hidden, asked.trials, seed)
                epochs = asked.epochs
                if name == "target only":
                    counts = bench.task.counts["train"], bench.source.task.counts["train"]
                    epochs = round(epochs * baseline_epoch_factor(*counts))
                if asked.untuned:
                    params = iter([{**UNTUNED, **fixed}])
                accuracy, chosen, everything = best_of(bench, method, params, epochs, seed)
                results.setdefault(name, []).append(accuracy)
                line = {
                    "seed": seed, "labels": asked.labels, "angle": asked.angle,
                    "trials": asked.trials, "epochs": asked.epochs,
                    "method": name, "test_accuracy": accuracy, "params": chosen, "trials_found": everything,
                    "seconds": round(time.monotonic() - began, 1),
                }  # fmt: skip
                print(json.dumps(line), flush=True)
                if asked.out:
                    with asked.out.open("a") as file:
                        file.write(json.dumps(line) + "\n")
    for name, accuracies in results.items():
        print(f"{name:22} {np.mean(accuracies):.3f} ± {interval(accuracies):.3f}")


def interval(values: list[float]) -> float:
    """Half the width of the 95 % interval of the mean (Student's t)."""
    from scipy.stats import t

    n = len(values)
    return float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")


if __name__ == "__main__":
    main()
