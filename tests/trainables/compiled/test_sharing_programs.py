"""One compiled epoch serves trials whose heads, rates and augmentations differ, with the numbers of a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainables.backbones.spec import BackboneSpec
from trainables.compiled.adam import Adam
from trainables.compiled.head import head_shapes, initial_weights
from trainables.compiled.resizable_head import ResizableHead
from trainables.methods.methods import begin
from trainables.modalities.image.backbones import load
from trainables.modalities.image.datasets import prepare
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("sharing ü")
    load(BackboneSpec("print")).save(made / "backbone.keras")
    prepare("digits", image_size=(32, 32), directory=made / "digits")
    return made


def bench(folder: Path) -> Workbench:
    return Workbench.open(folder / "backbone.keras", folder / "digits")


def losses(bench: Workbench, units: int, **changes: Any) -> list[float]:
    params = {"unfreeze_depth": 1, "learning_rate": 3e-3, "head_units": units, "augmentation_strength": 0.0}
    training = begin(TrialConfig("finetune", {**params, **changes}, epochs=3, seed=5), bench)
    found = [training.run_epoch().train_loss for _ in range(3)]
    training.release()
    return found


@pytest.mark.slow
def test_heads_of_all_widths_and_augmented_views_share_one_program(folder: Path) -> None:
    shared = bench(folder)
    trials: list[dict[str, Any]] = [
        {"units": 64},
        {"units": 0},
        {"units": 8, "weight_decay": 0.2, "dropout": 0.3},
        {"units": 64, "augmentation_strength": 0.5},
        {"units": 0, "label_smoothing": 0.1},
    ]
    found = [losses(shared, **t) for t in trials]
    assert shared.compiled == 1
    for trial, ours in zip(trials[1:4], found[1:4], strict=True):
        np.testing.assert_array_equal(ours, losses(bench(folder), **trial))


@pytest.mark.parametrize("units", [0, 5])
def test_a_resizable_head_computes_what_the_keras_head_computes(units: int) -> None:
    arrays = initial_weights(head_shapes(7, units, 3), seed=4)
    head = ResizableHead(7, 3)
    head.assign(initial_weights(head_shapes(7, 11, 3), seed=9))
    head.assign(arrays)
    x, seed = tf.random.stateless_normal((6, 7), (1, 2)), tf.constant([3, 4])
    layers = head.keras_head()
    np.testing.assert_allclose(head(x), layers(x), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(head(x, 0.4, seed), layers(x, 0.4, seed), rtol=1e-6, atol=1e-6)
    for kept, given in zip(head.without_empty(head.variables), arrays, strict=True):
        np.testing.assert_array_equal(kept, given)


@pytest.mark.parametrize("arrays", [[], [(7, 5), (5,), (4, 3), (3,)], [(8, 3), (3,)], [(7, 3)]])
def test_arrays_of_wrong_shapes_are_refused(arrays: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="expected arrays of shapes"):
        ResizableHead(7, 3).assign([np.zeros(shape, np.float32) for shape in arrays])


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_matches_keras(decay: float) -> None:
    random = np.random.default_rng(0)
    first = [random.normal(size=s).astype(np.float32) for s in ((4, 3), (3,))]
    ours = [tf.Variable(a) for a in first]
    theirs = [keras.Variable(a) for a in first]
    adam, expected = Adam(ours), keras.optimizers.AdamW(weight_decay=decay)
    expected.exclude_from_weight_decay([theirs[1]])
    expected.build(theirs)
    step = tf.function(adam.apply)
    for rate in (1e-2, 3e-3, 1e-3, 1e-2):
        gradients = [tf.constant(random.normal(size=a.shape), tf.float32) for a in first]
        step(gradients, tf.constant(rate), tf.constant(decay))
        expected.learning_rate.assign(rate)
        expected.apply(gradients, theirs)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=2e-5, atol=1e-6)
    assert int(adam.variables[0].numpy()) == 4
    adam.reset()
    assert not any(np.any(v.numpy()) for v in [adam.variables[0], *adam.variables[2:]])
