"""Training losses that a method minimises in the place of the cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import tensorflow as tf

from trainables.batched_heads.program import HeadProgram
from trainables.compiled.head import initial_weights
from trainables.compiled.loss import ExampleInput, LossInputs, TrainingLoss
from trainables.methods.finetune import FineTune
from trainables.methods.methods import METHODS, Method, begin
from trainables.testing import MethodConformance
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

WIDTH = 3


@dataclass(frozen=True)
class DistanceLoss(TrainingLoss):
    """Cross-entropy, and a regression of given values (``guide``) on the inputs of the last layer."""

    @property
    def example_inputs(self) -> tuple[ExampleInput, ...]:
        return (ExampleInput("guide", (WIDTH,)),)

    @property
    def scalars(self) -> tuple[str, ...]:
        return ("pull",)

    def variable_shapes(self, features: int, classes: int) -> Sequence[tuple[int | None, ...]]:
        return ((None, WIDTH),)

    def initial_variables(self, features: int, units: int, classes: int, seed: int) -> list[np.ndarray]:
        return initial_weights([(units or features, WIDTH)], seed)

    def loss(self, inputs: LossInputs) -> Any:
        projected = tf.matmul(inputs.hidden, inputs.variables[0])
        far = tf.reduce_mean(tf.square(projected - inputs.example_inputs["guide"]))
        return tf.reduce_mean(inputs.cross_entropy) + inputs.scalars["pull"] * far


@dataclass(frozen=True)
class Plain(TrainingLoss):
    """The mean cross-entropy, written as a training loss."""

    def loss(self, inputs: LossInputs) -> Any:
        return tf.reduce_mean(inputs.cross_entropy)


class DistanceFineTune(FineTune):
    def training_loss(self) -> TrainingLoss:
        return DistanceLoss()

    def example_inputs(self, epoch: int) -> Mapping[str, np.ndarray]:
        labels = self.bench.task.split("train").labels
        return {"guide": np.stack([labels == k for k in range(WIDTH)], axis=1).astype(np.float32)}

    def loss_scalars(self, epoch: int) -> np.ndarray:
        return np.full((self.feed.steps, 1), self.config.number("pull", 0.1) * epoch, np.float32)


class PlainTune(FineTune):
    def training_loss(self) -> TrainingLoss:
        return Plain()


@pytest.fixture(autouse=True)
def methods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        METHODS, "guide", Method(f"{__name__}.DistanceFineTune", "trains with the loss under test")
    )
    monkeypatch.setitem(METHODS, "plain", Method(f"{__name__}.PlainTune", "trains with the default loss"))


@pytest.fixture
def bench(print_bench: Workbench) -> Workbench:
    return print_bench


class TestGuidedHead(MethodConformance):
    method = "guide"
    params: ClassVar[dict[str, Any]] = {"unfreeze_depth": 0, "learning_rate": 1e-2, "head_units": 16}


@pytest.mark.slow
class TestGuidedBlocks(MethodConformance):
    method = "guide"
    params: ClassVar[dict[str, Any]] = {
        "unfreeze_depth": 1,
        "learning_rate": 3e-3,
        "head_units": 0,
        "augmentation_strength": 0.5,
    }


def losses(bench: Workbench, method: str, depth: int, **changes: Any) -> list[float]:
    live = changes.pop("live", False)
    params = {"unfreeze_depth": depth, "learning_rate": 3e-3, "head_units": 0, **changes}
    training = begin(TrialConfig(method, params, epochs=3, seed=1, live=live), bench)
    found = [training.run_epoch().train_loss for _ in range(3)]
    training.release()
    return found


def test_the_cross_entropy_as_a_training_loss_gives_the_same_bits(bench: Workbench) -> None:
    assert losses(bench, "plain", 1) == losses(bench, "finetune", 1)


@pytest.mark.parametrize("depth", [0, 2])
def test_activations_and_live_images_give_the_same_numbers(bench: Workbench, depth: int) -> None:
    live = losses(bench, "guide", depth, live=True)
    np.testing.assert_allclose(losses(bench, "guide", depth), live, rtol=2e-3)


def test_other_scalars_and_head_widths_compile_nothing(bench: Workbench) -> None:
    first = losses(bench, "guide", 0, pull=0.1)
    compiled = bench.compiled
    assert losses(bench, "guide", 0, pull=0.5) != first
    losses(bench, "guide", 0, head_units=24)
    assert bench.compiled == compiled


def test_only_trials_with_the_default_loss_are_batched(bench: Workbench) -> None:
    kinds = []
    for method in ("finetune", "plain"):
        training = begin(TrialConfig(method, {"unfreeze_depth": 0}, epochs=1), bench)
        kinds.append(isinstance(training.program, HeadProgram))
        training.release()
    assert kinds == [True, False]


def test_a_missing_example_input_is_named_in_the_error(bench: Workbench) -> None:
    class Silent(DistanceFineTune):
        def example_inputs(self, epoch: int) -> Mapping[str, np.ndarray]:
            return {}

    training = Silent(TrialConfig("guide", {"unfreeze_depth": 0}, epochs=1), bench)
    with pytest.raises(ValueError, match=r"expected scalars .*'pull'.* and the arrays \['guide'\], received"):
        training.run_epoch()
    training.release()


def test_a_training_loss_must_define_its_loss(bench: Workbench) -> None:
    class Nothing(FineTune):
        def training_loss(self) -> TrainingLoss:
            return TrainingLoss()

    with pytest.raises(TypeError, match=r"TrainingLoss must define loss\(\)"):
        Nothing(TrialConfig("nothing", {"unfreeze_depth": 1}, epochs=1), bench)
