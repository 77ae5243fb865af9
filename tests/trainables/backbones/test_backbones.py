"""Backbones of every family: prefix and suffix make the whole, and a saved backbone is read back unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from trainables.backbones.backbone import Backbone
from trainables.backbones.spec import BackboneSpec
from trainables.errors import BackboneError
from trainables.modalities.image.backbones import load
from trainables.modalities.image.print_backbone import CUTS

BLOCKS = {
    "MobileNetV2": 18,
    "MobileNetV3Small": 13,
    "EfficientNetB0": 17,
    "ResNet50": 17,
    "VGG16": 5,
    "DenseNet121": 17,
    "ConvNeXtTiny": 20,
}


QUICK = ("MobileNetV3Small", "VGG16")


@pytest.fixture(
    scope="module",
    params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in BLOCKS],
)
def network(request: pytest.FixtureRequest) -> Iterator[Backbone]:
    backbone = load(BackboneSpec(request.param, weights="none", input_size=32, seed=3))
    shake(backbone.model)
    yield backbone
    del backbone


@pytest.fixture(scope="module")
def built_in() -> Backbone:
    return load(BackboneSpec())


def shake(model: Any) -> None:
    """Give BatchNorm statistics that matter."""
    draw = np.random.default_rng(2)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(draw.normal(0, 0.1, layer.moving_mean.shape))
            layer.moving_variance.assign(draw.uniform(0.5, 1.5, layer.moving_variance.shape))


def pixels(backbone: Backbone, count: int = 2) -> np.ndarray:
    shape = (count, *backbone.input_size, 3)
    return np.random.default_rng(0).integers(0, 256, shape).astype("float32")


def run(model: Any, x: Any) -> np.ndarray:
    return np.asarray(model(x, training=False))


def test_prefix_then_suffix_is_the_whole_bit_for_bit(network: Backbone) -> None:
    x, most = pixels(network), len(network.blocks)
    whole = run(network.model, x)
    assert whole.shape == (2, network.model.output.shape[-1])
    assert np.abs(whole[0] - whole[1]).max() > 0
    for depth in (1, 2, most // 2, most):
        prefix, suffix = network.parts(depth)
        np.testing.assert_array_equal(run(suffix, run(prefix, x)), whole)


def test_blocks_are_as_many_as_the_architecture_suggests(network: Backbone) -> None:
    assert len(network.blocks) == BLOCKS[network.name]
    assert len({block.name for block in network.blocks}) == len(network.blocks)


def test_blocks_contain_all_weights_and_none_is_empty(network: Backbone) -> None:
    assert sum(block.parameters for block in network.blocks) == network.parameters
    for depth, block in enumerate(reversed(network.blocks), start=1):
        _, suffix = network.parts(depth)
        assert suffix.count_params() == sum(b.parameters for b in network.blocks[-depth:])
        assert block.parameters > 0


def test_the_lowest_prefix_only_preprocesses(network: Backbone) -> None:
    prefix, _ = network.parts(len(network.blocks))
    assert prefix.count_params() == 0
    assert prefix.output.shape[1:] == network.model.input.shape[1:]


def test_a_saved_and_reopened_backbone_is_unchanged(network: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "a folder ü" / "字 'quoted'.keras"
    saved = Backbone(network.spec, network.name, network.weights, network.model)
    saved.save(path)
    opened = Backbone.open(path)
    assert (opened.name, opened.weights, opened.digest) == (saved.name, saved.weights, saved.digest)
    assert (opened.input_size, opened.parameters) == (saved.input_size, saved.parameters)
    assert opened.spec == saved.spec
    assert [(b.name, b.parameters, b.cut) for b in opened.blocks] == [
        (b.name, b.parameters, b.cut) for b in saved.blocks
    ]
    assert opened.cuts == saved.cuts
    np.testing.assert_array_equal(run(opened.model, pixels(saved)), run(saved.model, pixels(saved)))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_fresh_weights_follow_the_seed_alone(network: Backbone) -> None:
    first = network.fresh_weights(1)
    np.random.default_rng().random()
    again, other = network.fresh_weights(1), network.fresh_weights(2)
    assert [w.shape for w in first] == [tuple(w.shape) for w in network.model.weights]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    kernels = [(a, b) for a, b in zip(first, other, strict=True) if a.ndim > 1]
    assert all(not np.array_equal(a, b) for a, b in kernels)


def test_the_built_in_one_has_four_blocks_and_shipped_weights(built_in: Backbone) -> None:
    assert (built_in.name, built_in.weights, built_in.input_size) == ("print", "shipped", (32, 32))
    assert [block.cut.name for block in built_in.blocks[1:]] == list(CUTS)
    whole = run(built_in.model, pixels(built_in, 3))
    for depth in range(1, 5):
        prefix, suffix = built_in.parts(depth)
        np.testing.assert_array_equal(run(suffix, run(prefix, pixels(built_in, 3))), whole)


def test_the_built_in_one_at_another_size_keeps_its_weights(built_in: Backbone) -> None:
    larger = load(BackboneSpec(input_size=48))
    assert larger.input_size == (48, 48)
    assert larger.digest != built_in.digest
    assert [b.name for b in larger.blocks] == [b.name for b in built_in.blocks]
    for ours, theirs in zip(larger.model.weights, built_in.model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_fixed_seeds_in_a_file_do_not_fix_fresh_weights(built_in: Backbone) -> None:
    one, two = built_in.fresh_weights(1), built_in.fresh_weights(2)
    assert any(not np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("name", ["print", pytest.param("MobileNetV3Small", marks=pytest.mark.slow)])
def test_random_weights_follow_the_spec_s_seed(name: str) -> None:
    def digest(seed: int) -> str:
        return load(BackboneSpec(name, weights="none", seed=seed, input_size=32)).digest

    assert digest(1) == digest(1) != digest(2)


def test_parts_are_built_once(built_in: Backbone) -> None:
    assert built_in.parts(2) is built_in.parts(2)
    assert built_in.parts(0) == (built_in.model, None)


@pytest.mark.parametrize("depth", [-1, 5])
def test_a_depth_out_of_range_is_refused(built_in: Backbone, depth: int) -> None:
    with pytest.raises(BackboneError, match=rf"depth: expected 0 to 4, received {depth}"):
        built_in.parts(depth)
