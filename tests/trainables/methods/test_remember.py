"""Keeping an old task: the importance of weights, the old head, and how much is forgotten."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from digit_tasks import dense_classifier, few_labels

from trainables.backbones.spec import BackboneSpec
from trainables.cost_account import CostAccount
from trainables.data.task import Task
from trainables.errors import UsageError
from trainables.methods.fisher import fisher_diagonal, fisher_importance
from trainables.methods.methods import begin
from trainables.modalities.image.backbones import load
from trainables.modalities.image.datasets import prepare
from trainables.training.old_task import OldHead, fit_head, fitted_old_head, old_accuracy
from trainables.training.resuming import load_training, save_training
from trainables.training.training import Training
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench


def softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def test_fisher_of_a_linear_layer_matches_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    inputs = keras.Input((3,))
    layer = keras.layers.Dense(4)
    suffix = keras.Model(inputs, layer(inputs))
    head = OldHead(rng.normal(size=(4, 5)).astype(np.float32), rng.normal(size=5).astype(np.float32))
    x = rng.normal(size=(6, 3)).astype(np.float32)
    kernel, bias = (np.asarray(w, np.float64) for w in layer.get_weights())
    p = softmax((x @ kernel + bias) @ head.kernel + head.bias)
    wanted_kernel, wanted_bias = np.zeros((3, 4)), np.zeros(4)
    for row, chances in zip(x.astype(np.float64), p, strict=True):
        for answer, chance in enumerate(chances):
            slope = head.kernel @ (np.eye(5)[answer] - chances)  # of log p by the layer's outputs
            wanted_bias += chance * slope**2 / len(x)
            wanted_kernel += chance * np.outer(row, slope) ** 2 / len(x)
    found = fisher_diagonal(suffix, head, x)
    np.testing.assert_allclose(found[0], wanted_kernel, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], wanted_bias, rtol=1e-4, atol=1e-5)


def test_weights_that_no_gradient_trains_have_no_importance() -> None:
    inputs = keras.Input((3,))
    suffix = keras.Model(inputs, keras.layers.BatchNormalization()(keras.layers.Dense(2)(inputs)))
    suffix.layers[-1].trainable = False
    head = OldHead(np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
    found = fisher_diagonal(suffix, head, np.ones((2, 3), np.float32))
    assert [bool(f.any()) for f in found] == [True, True, False, False, False, False]


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_the_old_head_matches_logistic_regression(classes: int) -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 90)
    features = rng.normal(size=(90, 5)) * np.array([1, 2, 0.1, 5, 0]) + labels[:, None]
    spread = features.std(axis=0)
    spread[spread == 0] = 1
    scaled = (features - features.mean(axis=0)) / spread
    wanted = LogisticRegression(max_iter=300).fit(scaled, labels).predict_proba(scaled)
    head = fit_head(features, labels, classes + 1)  # of the last class there is no image
    found = softmax(head.scores(features).astype(np.float64))
    np.testing.assert_allclose(found[:, :classes], wanted, atol=1e-4)
    assert found[:, classes].max() < 1e-9
    alone = fit_head(features, np.ones(90, int), 3)
    assert set(alone.scores(features).argmax(axis=1)) == {1}


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workbench, Workbench]:
    """A dense network that was trained on the digits 0 to 4, on the digits 5 to 9: with and without the old task."""
    folder = tmp_path_factory.mktemp("remember")
    raw = dense_classifier(folder / "dense.keras", range(5), epochs=40)
    load(BackboneSpec(str(raw))).save(folder / "backbone.keras")

    def task(name: str, digits: range, labels: int) -> Task:
        data = few_labels(folder / f"{name}.parquet", digits, labels)
        return prepare(str(data), image_size=(8, 8), directory=folder / name)

    new, old = task("new", range(5, 10), 20), task("old", range(5), 60)
    file = folder / "backbone.keras"
    remembering = Workbench.open(file, new.directory, remember=lambda: old.directory)
    return remembering, Workbench.open(file, new.directory)


def trained(bench: Workbench, epochs: int = 15, seed: int = 0, **params: object) -> Training:
    wanted = {"unfreeze_depth": len(bench.backbone.blocks), "learning_rate": 0.01, **params}
    training = begin(TrialConfig("finetune", wanted, epochs=epochs, seed=seed, batch_size=16), bench)
    while not training.done:
        training.run_epoch()
    return training


@pytest.mark.slow
def test_remembering_forgets_less_than_fine_tuning(benches: tuple[Workbench, Workbench]) -> None:
    bench = benches[0]
    facts, new = {}, {}
    for how, weight in (("none", 0.0), ("ewc", 1.0), ("lwf", 3.0), ("rehearsal", 1.0)):
        training = trained(bench, remembering=how, remember_weight=weight)
        facts[how] = training.old_task_metrics("test")
        new[how] = training.best.val_accuracy if training.best else 0.0
        assert training.cost().old_accuracy == training.old_task_metrics("validation")["old_accuracy"]
        training.release()
    before = facts["none"]["old_accuracy_before"]
    assert before > 0.9
    lost = {how: before - known["old_accuracy"] for how, known in facts.items()}
    assert lost["none"] > 0.1, lost
    assert lost["ewc"] < lost["none"] / 2, lost
    assert lost["lwf"] < lost["none"] / 2, lost
    assert lost["rehearsal"] < lost["none"] / 2, lost
    assert min(new.values()) > 0.6, new


def test_a_frozen_backbone_forgets_nothing(benches: tuple[Workbench, Workbench]) -> None:
    training = trained(benches[0], epochs=1, unfreeze_depth=0)
    found = training.old_task_metrics("test")
    assert found["old_accuracy"] == found["old_accuracy_before"]
    training.release()


def test_pretrained_weights_keep_the_old_accuracy(benches: tuple[Workbench, Workbench]) -> None:
    bench, account = benches[0], CostAccount()
    head, depth = fitted_old_head(bench, account), len(bench.backbone.blocks)
    weights = bench.backbone.parts(depth)[1].get_weights()
    before = old_accuracy(bench, head, 0, None, "validation", account)
    assert old_accuracy(bench, head, depth, weights, "validation", account) == before
    importance = fisher_importance(bench, depth, head, account)
    assert [f.shape for f in importance] == [w.shape for w in weights]
    assert np.mean(np.concatenate([f.ravel() for f in importance])) == pytest.approx(1.0, rel=1e-4)
    assert fisher_importance(bench, depth, head, account) is importance


@pytest.mark.parametrize("how", ["lwf", "rehearsal"])
def test_a_resumed_trial_keeps_its_old_head(
    how: str, benches: tuple[Workbench, Workbench], tmp_path: Path
) -> None:
    bench = benches[0]
    params = {"unfreeze_depth": 1, "learning_rate": 0.01, "remembering": how, "remember_weight": 1.0}
    config = TrialConfig("finetune", params, epochs=4, batch_size=16)
    whole = begin(config, bench)
    while not whole.done:
        whole.run_epoch()
    first = begin(config, bench)
    first.run_epoch()
    first.run_epoch()
    save_training(first, tmp_path / "checkpoint.npz")
    first.release()
    second = begin(config, bench)
    load_training(second, tmp_path / "checkpoint.npz")
    while not second.done:
        second.run_epoch()
    assert second.old_task_metrics("validation") == whole.old_task_metrics("validation")
    for a, b in zip(second.best_weights, whole.best_weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    whole.release()
    second.release()


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (
            {"remembering": "rehearse"},
            "remembering: expected one of ewc, lwf, rehearsal, none, received 'rehearse'",
        ),
        ({"remembering": "ewc", "remember_weight": -1.0}, "remember_weight: expected a number of at least 0"),
    ],
)
def test_values_out_of_range_are_refused(
    benches: tuple[Workbench, Workbench], params: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        begin(TrialConfig("finetune", {"unfreeze_depth": 1, "learning_rate": 0.01, **params}), benches[0])


def test_a_missing_old_task_names_the_option(benches: tuple[Workbench, Workbench]) -> None:
    with pytest.raises(UsageError, match="remember: expected an old task"):
        begin(
            TrialConfig("finetune", {"unfreeze_depth": 1, "learning_rate": 0.01, "remembering": "lwf"}),
            benches[1],
        )
    training = trained(benches[1], epochs=1)
    assert "old_accuracy" not in training.cost().to_json()
    training.release()
