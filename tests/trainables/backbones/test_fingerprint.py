"""The digest of a model depends on what it computes and on nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from trainables.backbones.backbone import Backbone
from trainables.backbones.fingerprint import graph_digest
from trainables.backbones.graph import find_operations, name_uniquely
from trainables.backbones.spec import BackboneSpec
from trainables.modalities.image.backbones import load


def build(units: int = 4, epsilon: float = 1e-3, shift: float = 3.0) -> Any:
    """The same numbers each time, under other automatic names each time."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(units, 3, kernel_initializer="ones")(image)
    x = layers.BatchNormalization(epsilon=epsilon)(x)
    x = layers.Dropout(0.1)(x * keras.ops.relu6(x + shift))
    return keras.Model(image, x)


def test_automatic_names_do_not_change_the_digest() -> None:
    first, second = build(), build()
    assert first.layers[1].name != second.layers[1].name
    assert graph_digest(first) == graph_digest(second)


@pytest.mark.parametrize("change", [{"units": 5}, {"epsilon": 1e-5}, {"shift": 2.0}])
def test_another_configuration_changes_the_digest(change: dict[str, Any]) -> None:
    assert graph_digest(build(**change)) != graph_digest(build())


def test_another_weight_changes_the_digest() -> None:
    model = build()
    before = graph_digest(model)
    kernel = model.weights[0].numpy()
    kernel.flat[0] += 1e-3
    model.weights[0].assign(kernel)
    assert graph_digest(model) != before


def test_other_connections_change_the_digest() -> None:
    image = keras.Input((8, 8, 3))
    one, two = layers.Conv2D(3, 1, kernel_initializer="ones"), layers.Conv2D(3, 1, kernel_initializer="zeros")
    a, b = one(image), two(image)
    minus = keras.Model(image, layers.Subtract()([a, b]))
    assert graph_digest(minus) != graph_digest(keras.Model(image, layers.Subtract()([b, a])))


def test_trainable_flags_do_not_change_the_digest() -> None:
    model = build()
    before = graph_digest(model)
    model.trainable = False
    assert graph_digest(model) == before


def test_the_input_size_changes_the_digest() -> None:
    assert load(BackboneSpec(input_size=40)).digest != load(BackboneSpec()).digest


def test_a_saved_and_reopened_model_has_the_same_digest(tmp_path: Path) -> None:
    model, path = build(), tmp_path / "model.keras"
    model.save(path)
    assert graph_digest(keras.models.load_model(path)) == graph_digest(model)


def test_splitting_and_fresh_weights_do_not_change_the_digest(tmp_path: Path) -> None:
    backbone = load(BackboneSpec())
    backbone.parts(2)
    backbone.fresh_weights(1)
    backbone.save(tmp_path / "backbone.keras")
    assert (
        Backbone.open(tmp_path / "backbone.keras").digest == backbone.digest == graph_digest(backbone.model)
    )


def test_names_are_numbered_within_the_model() -> None:
    for _ in range(2):
        model = build()
        named = find_operations(model.inputs, model.outputs)
        name_uniquely(named)
        assert [operation.name for operation in named][:3] == ["conv2d", "batch_normalization", "add"]


@pytest.mark.slow
def test_another_process_computes_the_same_digest(tmp_path: Path) -> None:
    spec = BackboneSpec("MobileNetV3Small", weights="none", input_size=32, seed=5)
    here = load(spec)
    here.save(tmp_path / "backbone.keras")
    code = (
        "import sys, keras; keras.layers.Conv2D(1, 1); keras.layers.Add()\n"
        "from pathlib import Path\n"
        "from trainables.backbones.backbone import Backbone\n"
        "from trainables.backbones.spec import BackboneSpec\n"
        "from trainables.modalities.image.backbones import load\n"
        f"there = load({spec!r})\n"
        "opened = Backbone.open(Path(sys.argv[1]))\n"
        "print(there.digest, opened.digest, *(b.name for b in there.blocks))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "backbone.keras")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout.split() == [here.digest, here.digest, *(b.name for b in here.blocks)]


def test_random_states_do_not_leak(tmp_path: Path) -> None:
    first = load(BackboneSpec(weights="none", seed=7)).digest
    np.random.default_rng().random()
    keras.utils.set_random_seed(1)
    assert load(BackboneSpec(weights="none", seed=7)).digest == first
