"""Mixed precision and XLA: the choice, the conversion of networks, and equal results within rounding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainables.activations.activations import ActivationCache
from trainables.activations.machine_speed import Rates
from trainables.backbones.backbone import Backbone
from trainables.backbones.precision import recast, recast_backbone
from trainables.backbones.spec import BackboneSpec
from trainables.compiled.loss_scale import GROWTH_STEPS, INITIAL_SCALE, LossScale
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import UsageError
from trainables.methods.methods import begin
from trainables.modalities.image.backbones import load
from trainables.numerics import FLOAT32, Numerics, choose_numerics
from trainables.serving.served_model import save_served_model
from trainables.testing import MethodConformance
from trainables.training.resuming import load_training, save_training
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

VOLTA, PASCAL, HOPPER = (7, 0), (6, 1), (9, 0)


@pytest.mark.parametrize(
    ("precision", "jit", "gpus", "expected"),
    [
        ("auto", "auto", [], FLOAT32),
        ("auto", "auto", [VOLTA], Numerics("mixed_float16", True)),
        ("auto", "auto", [HOPPER, HOPPER], Numerics("mixed_float16", True)),
        ("auto", "auto", [HOPPER, PASCAL], Numerics("float32", True)),
        ("auto", "auto", [None], Numerics("float32", True)),
        ("auto", "off", [HOPPER], Numerics("mixed_float16", False)),
        ("float32", "on", [], Numerics("float32", True)),
        ("mixed_bfloat16", "auto", [], Numerics("mixed_bfloat16", False)),
    ],
)
def test_what_pays_is_chosen_unless_something_is_asked_for(
    precision: str, jit: str, gpus: list[Any], expected: Numerics
) -> None:
    assert choose_numerics(precision, jit, gpus) == expected


def test_on_this_machine_the_choice_follows_its_gpus() -> None:
    gpus = tf.config.list_physical_devices("GPU")
    assert choose_numerics().jit == bool(gpus)
    assert gpus or choose_numerics() == FLOAT32


@pytest.mark.parametrize(
    ("options", "words"),
    [({"precision": "float16"}, r"precision: .*float32.*received 'float16'"), ({"jit": "yes"}, r"jit: .*on")],
)
def test_other_words_are_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        choose_numerics(**options)


@pytest.fixture(scope="module")
def backbone_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("precision ü") / "backbone.keras"
    load(BackboneSpec("print")).save(file)
    return file


def opened(file: Path, like: Workbench, numerics: Numerics) -> Workbench:
    return Workbench.open(file, like.task.directory, numerics=numerics)


@pytest.fixture(scope="module")
def mixed_float16(print_bench: Workbench, backbone_file: Path) -> Workbench:
    return opened(backbone_file, print_bench, Numerics("mixed_float16"))


@pytest.fixture(scope="module")
def mixed_bfloat16(print_bench: Workbench, backbone_file: Path) -> Workbench:
    return opened(backbone_file, print_bench, Numerics("mixed_bfloat16"))


@pytest.fixture(scope="module", params=["mixed_float16", "mixed_bfloat16"])
def mixed(request: pytest.FixtureRequest) -> Workbench:
    bench: Workbench = request.getfixturevalue(request.param)
    return bench


def config(**changes: Any) -> TrialConfig:
    params = {"unfreeze_depth": 2, "learning_rate": 3e-3, "head_units": 0, "augmentation_strength": 0.0}
    live = changes.pop("live", False)
    return TrialConfig("finetune", {**params, **changes}, epochs=5, seed=1, live=live)


def trained(bench: Workbench, **changes: Any) -> list[EpochMetrics]:
    training = begin(config(**changes), bench)
    metrics = [training.run_epoch() for _ in range(5)]
    training.release()
    return metrics


@pytest.mark.slow
class TestMixedFloat16(MethodConformance):
    method = "finetune"
    params: ClassVar[dict[str, Any]] = {
        "unfreeze_depth": 1,
        "learning_rate": 3e-3,
        "head_units": 0,
        "augmentation_strength": 0.0,
    }

    @pytest.fixture
    def bench(self, mixed_float16: Workbench) -> Workbench:
        return mixed_float16


def test_learns_as_well_as_in_float32(mixed: Workbench, print_bench: Workbench) -> None:
    ours, theirs = trained(mixed), trained(print_bench)
    assert ours[-1].train_loss < 0.5 * ours[0].train_loss
    assert ours[-1].val_accuracy == pytest.approx(theirs[-1].val_accuracy, abs=0.03)
    np.testing.assert_allclose([m.train_loss for m in ours], [m.train_loss for m in theirs], rtol=0.03)
    assert [m.train_loss for m in ours] != [m.train_loss for m in theirs]


def test_mixed_precision_computes_in_sixteen_bits_and_stores_weights_in_thirty_two(mixed: Workbench) -> None:
    training = begin(config(), mixed)
    training.run_epoch()
    weights, optimizer = training.program.read()
    assert {w.dtype for w in weights} == {np.dtype(np.float32)}
    assert {m.dtype for m in optimizer if m.ndim} == {np.dtype(np.float32)}
    suffix = training.program.suffix
    assert suffix is not None
    assert {layer.compute_dtype for layer in suffix.layers if layer.weights} == {
        mixed.numerics.precision.removeprefix("mixed_")
    }
    training.release()


def test_pixels_are_preprocessed_in_float32(mixed: Workbench) -> None:
    before, _ = mixed.backbone.parts(len(mixed.backbone.blocks))
    assert before.outputs[0].dtype == "float32"
    assert [b.name for b in mixed.backbone.blocks] == [b.name for b in load(BackboneSpec("print")).blocks]


def test_a_checkpoint_resumes_in_another_precision(
    mixed: Workbench, print_bench: Workbench, tmp_path: Path
) -> None:
    for source, target in ((mixed, print_bench), (print_bench, mixed)):
        first = begin(config(), source)
        loss = first.run_epoch().train_loss
        save_training(first, tmp_path / "checkpoint.npz")
        first.release()
        second = begin(config(), target)
        load_training(second, tmp_path / "checkpoint.npz")
        assert second.run_epoch().train_loss < loss
        second.release()


@pytest.mark.parametrize("depth", [0, 2])
def test_cached_activations_give_the_results_of_images(mixed: Workbench, depth: int) -> None:
    kept = [m.train_loss for m in trained(mixed, unfreeze_depth=depth)]
    live = [m.train_loss for m in trained(mixed, unfreeze_depth=depth, live=True)]
    np.testing.assert_allclose(kept, live, rtol=0.02)


FAST = Rates(1e12, 1e12, 1e12)


@dataclass(frozen=True)
class FastDisk:
    """A machine where everything is worth a file."""

    memory: Rates = FAST
    disk: Rates | None = FAST
    file_cache: int = 10**12
    min_seconds_for_file: float = 0.0


def test_activations_of_two_precisions_never_mix(
    mixed: Workbench, print_bench: Workbench, tmp_path: Path
) -> None:
    for bench, computed in ((print_bench, 1), (mixed, 1), (mixed, 0), (print_bench, 0)):
        files = ActivationCache(
            bench.backbone, bench.task, directory=tmp_path / "cache 字", disk_budget=10**9, speeds=FastDisk()
        )
        found = files.get("train", 1)
        assert found is not None
        assert files.misses == computed
        np.testing.assert_array_equal(found, bench.activations.get("train", 1))
    ours, theirs = (bench.activations.get("train", 1) for bench in (mixed, print_bench))
    assert not np.array_equal(ours, theirs)


def test_the_served_model_computes_in_float32(mixed: Workbench, tmp_path: Path) -> None:
    training = begin(config(), mixed)
    for _ in range(3):
        training.run_epoch()
    save_served_model(training, tmp_path / "model.keras")
    split = mixed.task.split("validation")
    trained_in_16_bits = training.predict("validation")
    training.release()
    model = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    assert {layer.dtype_policy.name for layer in model.layers if layer.weights} == {"float32"}
    served = np.concatenate([np.asarray(model(split.images[i : i + 100])) for i in range(0, len(split), 100)])
    assert served.dtype == np.float32
    np.testing.assert_allclose(served, trained_in_16_bits, atol=0.05)


def test_recasting_reaches_wrapped_layers_and_leaves_weights_alone() -> None:
    image = keras.Input((8, 8, 3))
    rows = keras.layers.TimeDistributed(keras.layers.Dense(4))(image)
    model = keras.Model(image, keras.layers.BatchNormalization()(rows + 1.0))
    copy = recast(model, "mixed_bfloat16")
    wrapped, norm = (layer for layer in copy.layers if layer.weights)
    assert wrapped.layer.compute_dtype == norm.compute_dtype == copy.outputs[0].dtype == "bfloat16"
    assert {w.dtype for w in copy.weights} == {"float32"}
    for ours, theirs in zip(copy.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_backbone_of_the_precision_asked_for_is_not_copied() -> None:
    backbone = load(BackboneSpec("print"))
    assert recast_backbone(backbone, "float32") is backbone
    there_and_back = recast_backbone(recast_backbone(backbone, "mixed_float16"), "float32")
    assert there_and_back.digest == backbone.digest


def test_loss_scale_skips_what_overflows_and_grows_again() -> None:
    weight, scale = tf.Variable(1.0), LossScale()

    @tf.function
    def step(slope: Any) -> None:
        scale.apply([scale.scaled(slope)], lambda gradients: weight.assign_sub(gradients[0]))

    step(tf.constant(float("inf")))
    assert float(weight) == 1.0
    assert [float(v) for v in scale.variables] == [INITIAL_SCALE / 2, 0]
    step(tf.constant(0.25))
    assert float(weight) == 0.75
    assert [float(v) for v in scale.variables] == [INITIAL_SCALE / 2, 1]
    scale.variables[1].assign(GROWTH_STEPS - 1)
    step(tf.constant(0.25))
    assert [float(v) for v in scale.variables] == [INITIAL_SCALE, 0]
    scale.reset()
    assert [float(v) for v in scale.variables] == [INITIAL_SCALE, 0]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Backbone, Path, Path]:
    """Two small convolutions and a dense layer: XLA takes seconds even for the print backbone."""
    from trainables.modalities.image.datasets import prepare

    folder = tmp_path_factory.mktemp("tiny")
    image = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(x)
    x = keras.layers.Conv2D(8, 3, activation="relu")(x)
    keras.Model(image, keras.layers.Dense(8)(keras.layers.Flatten()(x))).save(folder / "source.keras")
    backbone = load(BackboneSpec(str(folder / "source.keras"), preprocessing="none"))
    backbone.save(folder / "backbone.keras")
    task = prepare("digits", image_size=(8, 8), directory=folder / "digits")
    return backbone, folder / "backbone.keras", task.directory


@pytest.mark.parametrize(
    ("depth", "precision"),
    [
        (1, "float32"),
        pytest.param(0, "float32", marks=pytest.mark.slow),
        pytest.param(1, "mixed_float16", marks=pytest.mark.slow),
    ],
)
def test_xla_gives_the_same_numbers(tiny: tuple[Backbone, Path, Path], depth: int, precision: str) -> None:
    _, file, task = tiny
    found = []
    for jit in (False, True):
        bench = Workbench.open(file, task, numerics=Numerics(precision, jit))
        changes = {"unfreeze_depth": depth, "augmentation_strength": 0.5}
        training = begin(config(live=True, **changes), bench)
        found.append([training.run_epoch() for _ in range(3)])
        training.release()
        assert training.stage_seconds["compile"] > 0
        second = begin(config(live=True, **changes), bench)
        assert second.stage_seconds["compile"] == 0
        again = [second.run_epoch() for _ in range(3)]
        assert [m.train_loss for m in again] == [m.train_loss for m in found[-1]]
        second.release()
    without, compiled = ([(m.train_loss, m.val_loss) for m in each] for each in found)
    np.testing.assert_allclose(compiled, without, rtol=2e-2 if precision == "mixed_float16" else 1e-3)
