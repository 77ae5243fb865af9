"""L2-SP, layer-wise learning rates and gradual unfreezing: single steps against formulas in NumPy, and trials."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest

from trainables.activations.stages import PrefixStages
from trainables.backbones.backbone import Backbone
from trainables.backbones.spec import BackboneSpec
from trainables.compiled.head import head_shapes, initial_weights
from trainables.compiled.program import Program
from trainables.compiled.quadratic_penalty import QuadraticPenalty
from trainables.compiled.shapes import Batches, Hyperparameters, ProgramShape
from trainables.errors import UsageError
from trainables.methods.methods import begin
from trainables.testing import MethodConformance
from trainables.training.resuming import save_training
from trainables.training.schedule import block_rate_ratios, trainable_blocks
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

WIDTHS, CLASSES, BATCH, STEPS = (3, 6, 5, 4), 3, 8, 4
DEPTH = len(WIDTHS) - 1
RATE = 0.03


@pytest.fixture(scope="module")
def chain() -> Backbone:
    """Three blocks of one 1 x 1 convolution each, then the mean over the pixels."""
    x = inputs = keras.Input((2, 2, WIDTHS[0]))
    for width in WIDTHS[1:]:
        x = keras.layers.Conv2D(width, 1, activation="relu", bias_initializer="random_normal")(x)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    return Backbone(BackboneSpec(), "chain", "none", model, starts=[0, 1, 2])


@dataclass
class Reference:
    """The same network and Adam in NumPy, float64. ``weights`` are kernel and bias of each layer, the head's last."""

    weights: list[np.ndarray]
    moments: list[list[np.ndarray]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.weights = [np.array(w, np.float64).reshape(w.shape[-2:]) for w in self.weights]
        self.moments = [[np.zeros_like(w), np.zeros_like(w)] for w in self.weights]
        self.counts = [0] * len(self.weights)

    def gradients(self, x: np.ndarray, labels: np.ndarray) -> tuple[float, list[np.ndarray]]:
        hidden = [x.reshape(len(x), 4, -1).astype(np.float64)]
        for layer in range(DEPTH):
            hidden.append(np.maximum(hidden[-1] @ self.weights[2 * layer] + self.weights[2 * layer + 1], 0.0))
        features = hidden[-1].mean(axis=1)
        scores = features @ self.weights[-2] + self.weights[-1]
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares = odds / odds.sum(axis=1, keepdims=True)
        loss = -np.log(shares[np.arange(len(x)), labels]).mean()
        slope = (shares - np.eye(CLASSES)[labels]) / len(x)
        found = [features.T @ slope, slope.sum(axis=0)]
        slope = np.repeat((slope @ self.weights[-2].T)[:, None] / 4, 4, axis=1)
        for layer in reversed(range(DEPTH)):
            slope = slope * (hidden[layer + 1] > 0)
            found = [np.einsum("bpi,bpo->io", hidden[layer], slope), slope.sum(axis=(0, 1)), *found]
            slope = slope @ self.weights[2 * layer].T
        return float(loss), found

    def step(self, gradients: list[np.ndarray], rates: list[float], decays: list[float]) -> None:
        for i, (gradient, rate, decay) in enumerate(zip(gradients, rates, decays, strict=True)):
            if rate == 0.0:
                continue
            self.counts[i] += 1
            if self.weights[i].ndim > 1:
                self.weights[i] *= 1 - rate * decay
            first, second = self.moments[i]
            first[...] = 0.9 * first + 0.1 * gradient
            second[...] = 0.999 * second + 0.001 * gradient**2
            scale = np.sqrt(1 - 0.999 ** self.counts[i]) / (1 - 0.9 ** self.counts[i])
            self.weights[i] -= rate * scale * first / (np.sqrt(second) + 1e-7)


RANDOM = np.random.default_rng(3)
IMAGES = RANDOM.uniform(0, 2, (STEPS, BATCH, 2, 2, WIDTHS[0])).astype(np.float32)
LABELS = RANDOM.integers(0, CLASSES, (STEPS, BATCH)).astype(np.int32)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    ("ratios", "decay", "strength", "fisher"),
    [
        ((1.0, 1.0, 1.0), 0.0, 0.0, False),
        ((0.09, 0.3, 1.0), 0.1, 0.0, False),
        ((0.5, 0.5, 0.5), 0.1, 0.7, False),
        ((0.2, 0.4, 0.8), 0.1, 0.7, True),
        ((0.0, 0.25, 0.5), 0.2, 0.7, True),
        ((0.0, 0.0, 0.0), 0.2, 0.7, False),
    ],
)
def test_a_step_matches_the_formulas(
    chain: Backbone, ratios: tuple[float, ...], decay: float, strength: float, fisher: bool, jit: bool
) -> None:
    """The anchors differ from the first weights; otherwise the first gradient of the penalty would be zero."""
    gradual = 0.0 in ratios
    shape = ProgramShape(
        DEPTH, CLASSES, BATCH, True, True, 0.9, jit=jit, head_units=0 if jit else None,
        gradual=gradual, penalised=strength > 0,
    )  # fmt: skip
    program = Program(chain, shape, PrefixStages(chain, np.zeros((1, 2, 2, 3), np.uint8)))
    program.compile("float32", "float32")
    _, suffix = chain.parts(DEPTH)
    assert suffix is not None
    start = suffix.get_weights()
    random = np.random.default_rng(5)
    anchors = [(w + random.normal(size=w.shape)).astype(np.float32) for w in start]
    importance = [random.uniform(0, 2, w.shape).astype(np.float32) for w in start] if fisher else None
    head = initial_weights(head_shapes(WIDTHS[-1], 0, CLASSES), seed=1)
    program.start(start, head)
    program.set_penalty(QuadraticPenalty(strength, anchors, importance))
    reference, losses = Reference([*start, *head]), []
    for images, labels in zip(IMAGES, LABELS, strict=True):
        loss, gradients = reference.gradients(images, labels)
        losses.append(loss)
        for i, anchor in enumerate(anchors):
            anchor = anchor.reshape(anchor.shape[-2:])
            factor = 1.0 if importance is None else importance[i].reshape(anchor.shape)
            gradients[i] = gradients[i] + strength * factor * (reference.weights[i] - anchor)
        paces = [RATE * ratio for ratio in ratios for _ in range(2)] + [RATE, RATE]
        own = 0.0 if strength else decay
        reference.step(gradients, paces, [own] * 2 * DEPTH + [decay] * 2)
    rates = np.full(STEPS, RATE, np.float32)
    total = program.train(
        Batches(IMAGES, LABELS),
        rates,
        np.array(ratios, np.float32),
        Hyperparameters(weight_decay=decay),
        (0, 0),
    )
    assert total == pytest.approx(sum(losses), rel=1e-5)
    for ours, theirs in zip(program.read_weights(), reference.weights, strict=True):
        np.testing.assert_allclose(ours.reshape(theirs.shape), theirs, rtol=1e-5, atol=1e-5)
    for block, ratio in enumerate(ratios):
        if ratio == 0.0:
            np.testing.assert_array_equal(program.read_weights()[2 * block], start[2 * block])


def test_blocks_are_unfrozen_in_equal_intervals_from_the_top() -> None:
    assert [trainable_blocks(2, 0.5, epoch, 4) for epoch in range(1, 5)] == [0, 1, 2, 2]
    assert [trainable_blocks(3, 0.3, epoch, 10) for epoch in range(1, 6)] == [0, 1, 2, 3, 3]
    assert [trainable_blocks(4, 0.0, epoch, 3) for epoch in range(1, 4)] == [4, 4, 4]
    assert [trainable_blocks(20, 0.5, epoch, 2) for epoch in range(1, 3)] == [0, 20]
    assert trainable_blocks(0, 0.5, 1, 4) == 0


def test_each_blocks_rate_is_a_share_of_the_block_above() -> None:
    np.testing.assert_allclose(block_rate_ratios(3, 0.5, 0.4, 3), [0.08, 0.2, 0.5], rtol=1e-6)
    np.testing.assert_allclose(block_rate_ratios(3, 0.5, 0.4, 2), [0, 0.2, 0.5], rtol=1e-6)
    np.testing.assert_array_equal(block_rate_ratios(3, 1.0, 1.0, 0), [0, 0, 0])
    assert block_rate_ratios(0, 0.5, 0.4, 0).shape == (0,)


@pytest.fixture
def bench(print_bench: Workbench) -> Workbench:
    return print_bench


BASE = {"unfreeze_depth": 2, "learning_rate": 3e-3, "head_units": 0, "augmentation_strength": 0.0}


def losses(bench: Workbench, **changes: Any) -> list[float]:
    training = begin(TrialConfig("finetune", {**BASE, **changes}, epochs=3, seed=1), bench)
    found = [training.run_epoch().train_loss for _ in range(3)]
    training.release()
    return found


class TestEverythingOn(MethodConformance):
    method = "finetune"
    params: ClassVar[dict[str, Any]] = {
        **BASE,
        "augmentation_strength": 0.5,
        "dropout": 0.2,
        "weight_decay": 1e-2,
        "backbone_lr_ratio": 0.5,
        "l2sp": 0.1,
        "layer_lr_decay": 0.5,
        "gradual_unfreezing": 0.5,
    }


def test_neutral_values_change_nothing_and_compile_nothing(bench: Workbench) -> None:
    plain = losses(bench)
    compiled = bench.compiled
    assert losses(bench, l2sp=0.0, layer_lr_decay=1.0, gradual_unfreezing=0.0) == plain
    assert losses(bench, layer_lr_decay=0.5) != plain
    assert bench.compiled == compiled


def test_penalty_strength_is_no_constant_of_the_graph(bench: Workbench) -> None:
    weak = losses(bench, l2sp=1e-6)
    compiled = bench.compiled
    strong = losses(bench, l2sp=10.0)
    assert bench.compiled == compiled
    np.testing.assert_allclose(weak, losses(bench), rtol=1e-3)
    assert strong[-1] > weak[-1]
    assert losses(bench, l2sp=1e-6) == weak


def test_a_strong_penalty_keeps_the_pretrained_weights(bench: Workbench) -> None:
    def distance(strength: float) -> float:
        training = begin(TrialConfig("finetune", {**BASE, "l2sp": strength}, epochs=3, seed=1), bench)
        _, suffix = bench.backbone.parts(2)
        assert suffix is not None
        for _ in range(3):
            training.run_epoch()
        program = training.program
        assert program.suffix is not None
        pairs = zip(program.suffix.trainable_variables, suffix.trainable_variables, strict=True)
        found = sum(float(np.square(ours - theirs).sum()) for ours, theirs in pairs)
        training.release()
        return found**0.5

    assert distance(10.0) < 0.5 * distance(0.0)


def test_blocks_that_are_not_yet_unfrozen_are_frozen_in_every_respect(bench: Workbench) -> None:
    """Weights, BatchNorm statistics, moments and step counts stay, and the forward pass is the frozen one."""
    params = {**BASE, "gradual_unfreezing": 0.5, "weight_decay": 0.1, "l2sp": 0.1}
    training = begin(TrialConfig("finetune", params, epochs=4, seed=1, live=True), bench)
    program = training.program
    assert program.suffix is not None
    lower = len(bench.backbone.parts(2)[1].weights) - len(bench.backbone.parts(1)[1].weights)  # type: ignore[union-attr]
    before, (_, optimizer) = program.read_weights(), program.read()
    first = training.run_epoch()
    _changed(before[:-2], program.read_weights()[:-2], False)
    _changed(optimizer[6:], program.read_optimizer()[6:], False)
    alone = begin(
        TrialConfig("finetune", {**params, "unfreeze_depth": 0}, epochs=4, seed=1, live=True), bench
    )
    assert alone.run_epoch().train_loss == pytest.approx(first.train_loss, rel=1e-4)
    alone.release()
    training.run_epoch()
    now = program.read_weights()
    _changed(before[:lower], now[:lower], False)
    _changed(before[lower:-2], now[lower:-2], True)
    training.run_epoch()
    _changed(before[:lower], program.read_weights()[:lower], True)
    training.release()


def _changed(before: list[np.ndarray], after: list[np.ndarray], expected: bool) -> None:
    for was, now in zip(before, after, strict=True):
        assert (not np.array_equal(was, now)) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [("l2sp", -1.0), ("layer_lr_decay", 0.0), ("layer_lr_decay", 1.5), ("gradual_unfreezing", 1.0)],
)
def test_values_out_of_range_are_refused(bench: Workbench, name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{name}: expected a .*, received {value:g}"):
        begin(TrialConfig("finetune", {**BASE, name: value}), bench)


def test_a_checkpoint_holds_no_penalty_anchors(bench: Workbench, tmp_path: Path) -> None:
    sizes = []
    for strength in (0.0, 1.0):
        training = begin(TrialConfig("finetune", {**BASE, "l2sp": strength}, epochs=1), bench)
        training.run_epoch()
        save_training(training, tmp_path / f"{strength}.npz")
        training.release()
        sizes.append((tmp_path / f"{strength}.npz").stat().st_size)
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)
