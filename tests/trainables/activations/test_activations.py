"""Activations are the same whether they are computed, cached, read from a file or derived from a lower cut."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from trainables.activations.activations import ActivationCache
from trainables.activations.augmentation_views import (
    STRENGTH_LEVELS,
    nearest_level,
    view_draws,
    view_for_epoch,
)
from trainables.activations.machine_speed import Rates
from trainables.backbones.backbone import Backbone
from trainables.backbones.spec import BackboneSpec
from trainables.methods.methods import begin
from trainables.modalities.image.augment import distort
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

SIZE, COUNT = 16, 90


@dataclass(frozen=True)
class Images:
    images: np.ndarray
    labels: np.ndarray


class Pictures:
    """A task of three classes: bars across, bars down, blobs."""

    name, classes = "pictures", ("across", "down", "blob")

    def __init__(self, digest: str = "pictures", counts: tuple[int, int, int] = (COUNT, 30, 30)) -> None:
        self.digest = digest
        self.counts = dict(zip(("train", "validation", "test"), counts, strict=True))
        self._splits = {
            name: self._draw(count, seed) for seed, (name, count) in enumerate(self.counts.items())
        }

    def split(self, name: str) -> Images:
        return self._splits[name]

    def _draw(self, count: int, seed: int) -> Images:
        generator = np.random.default_rng(seed)
        labels = np.arange(count) % 3
        images = generator.integers(0, 60, (count, SIZE, SIZE, 3)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            at = generator.integers(2, SIZE - 4)
            rows = slice(at, at + 3) if label != 1 else slice(1, -1)
            columns = slice(at, at + 3) if label != 0 else slice(1, -1)
            image[rows, columns] = 230
        return Images(images, labels)


FAST = Rates(1e12, 1e12, 1e12)


@dataclass(frozen=True)
class FastDisk:
    """A machine whose disk is so fast that everything is worth a file."""

    memory: Rates = FAST
    disk: Rates | None = FAST
    file_cache: int = 10**12
    min_seconds_for_file: float = 0.0


def kept_in(folder: Path, network: Backbone, task: Pictures, **options: Any) -> ActivationCache:
    return ActivationCache(network, task, directory=folder, speeds=FastDisk(), **options)


Tail = Callable[[Any], Any]


def backbone(tail: Tail = lambda x: x, seed: int = 3) -> Backbone:
    """Four small convolutional blocks; ``tail`` goes between the third and the fourth."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    for block, width in enumerate((8, 12, 16, 16)):
        if block == 3:
            x = tail(x)
        x = keras.layers.Conv2D(width, 3, padding="same", name=f"conv_{block}")(x)
        x = keras.layers.BatchNormalization(name=f"norm_{block}")(x)
        x = keras.layers.ReLU(name=f"relu_{block}")(x)
        if block < 2:
            x = keras.layers.MaxPooling2D(name=f"pool_{block}")(x)
            x = keras.layers.Dropout(0.5)(x)
    outputs = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
    return Backbone(BackboneSpec("small"), "small", "none", keras.Model(inputs, outputs))


@keras.saving.register_keras_serializable("tests")
class NoiseInInference(keras.layers.Layer):  # type: ignore[misc]
    """Adds noise in inference, too."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(1)

    def call(self, x: Any) -> Any:
        return x + 0.1 * keras.random.normal(keras.ops.shape(x), seed=self.generator)


@pytest.fixture(scope="module")
def small() -> Backbone:
    made = backbone()
    assert len(made.blocks) == 4
    return made


@pytest.fixture(scope="module")
def task() -> Pictures:
    return Pictures()


def exact(network: Backbone, depth: int, images: np.ndarray) -> np.ndarray:
    """What the prefix makes of images in float32, without any of the code under test."""
    return np.asarray(network.parts(depth)[0](images.astype(np.float32), training=False))


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square of the difference, as a share of the spread between images."""
    spread = np.sqrt(np.mean((expected - expected.mean(axis=0)) ** 2))
    return float(np.sqrt(np.mean((found.astype(np.float32) - expected) ** 2)) / spread)


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_activations_are_the_prefix_in_float16(
    small: Backbone, task: Pictures, depth: int, split: str
) -> None:
    found = ActivationCache(small, task).get(split, depth)
    expected = exact(small, depth, task.split(split).images)
    assert found is not None
    assert found.dtype == np.float16
    assert found.shape == expected.shape
    assert not found.flags.writeable
    assert error(found, expected) < 2e-3


def test_a_second_request_is_not_computed_again(small: Backbone, task: Pictures) -> None:
    activations = ActivationCache(small, task)
    first = activations.get("train", 1)
    assert activations.get("train", 1) is first
    assert (activations.misses, activations.hits) == (1, 1)
    assert activations.bytes == {"memory": first.nbytes, "disk": 0}


def test_concurrent_threads_compute_activations_once(small: Backbone, task: Pictures) -> None:
    activations = ActivationCache(small, task)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(activations.get("train", 0))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert activations.misses == 1
    assert all(array is found[0] for array in found)


@pytest.mark.parametrize("lower", [1, 2, 3])
def test_a_cut_derived_from_a_lower_one_is_equal_bit_for_bit(
    small: Backbone, task: Pictures, lower: int
) -> None:
    direct, derived = ActivationCache(small, task), ActivationCache(small, task)
    derived.get("train", lower, strength=0.5, view=2)
    found = derived.get("train", 0, strength=0.5, view=2)
    np.testing.assert_array_equal(found, direct.get("train", 0, strength=0.5, view=2))
    assert (derived.derived, direct.derived) == (1, 0)


def test_views_are_the_distorted_images_through_the_prefix(small: Backbone, task: Pictures) -> None:
    images = task.split("train").images
    draws = view_draws(COUNT, 0.75, True, 5)
    pixels = np.asarray(distort(images.astype(np.float32), draws, np.float32(0.75), np.float32(1)))
    found = ActivationCache(small, task).get("train", 1, strength=0.75, flip=True, view=5)
    assert found is not None
    assert error(found, exact(small, 1, pixels)) < 2e-3


def test_views_differ_and_are_the_same_in_every_cache(small: Backbone, task: Pictures) -> None:
    one, other = ActivationCache(small, task), ActivationCache(small, task)
    asked = [
        {"strength": 0.0},
        {"strength": 0.5, "view": 0},
        {"strength": 0.5, "view": 1},
        {"strength": 1.0, "view": 0},
        {"strength": 0.5, "view": 0, "flip": True},
    ]
    found = [one.get("train", 2, **how) for how in asked]
    for index, first in enumerate(found):
        np.testing.assert_array_equal(first, other.get("train", 2, **asked[index]))
        assert not any(np.array_equal(first, second) for second in found[index + 1 :])


def test_a_strength_uses_the_nearest_level(small: Backbone, task: Pictures) -> None:
    activations = ActivationCache(small, task)
    assert activations.get("train", 0, strength=0.55, view=1) is activations.get(
        "train", 0, strength=0.5, view=1
    )
    assert activations.get("train", 0, strength=0.05) is activations.get("train", 0)


def test_levels_and_views() -> None:
    assert [nearest_level(s) for s in (0.0, 0.12, 0.13, 0.375, 0.9, 1.0)] == [0.0, 0.0, 0.25, 0.25, 1.0, 1.0]
    assert [view_for_epoch(epoch, 8) for epoch in (1, 2, 8, 9, 20)] == [0, 1, 7, 0, 3]
    assert STRENGTH_LEVELS[0] == 0.0
    np.testing.assert_array_equal(view_draws(5, 0.5, False, 1), view_draws(9, 0.5, False, 1)[:5])


class TestOnDisk:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "cäche 字"

    def test_another_process_reads_the_computed_file(self, task: Pictures, folder: Path) -> None:
        one, other = (kept_in(folder, backbone(), task) for _ in range(2))
        first = one.get("train", 1, strength=0.25, view=3)
        second = other.get("train", 1, strength=0.25, view=3)
        np.testing.assert_array_equal(first, second)
        assert (one.misses, one.hits, other.misses, other.hits) == (1, 0, 0, 1)
        assert one.bytes["disk"] > first.nbytes
        assert one.bytes["memory"] == 0
        assert one.notes == other.notes == ()

    def test_other_weights_data_or_splits_are_other_entries(self, task: Pictures, folder: Path) -> None:
        kept_in(folder, backbone(), task).get("train", 1)
        others = [(backbone(seed=4), task, "train"), (backbone(), Pictures("other"), "train")]
        for network, data, split in [*others, (backbone(), task, "validation")]:
            activations = kept_in(folder, network, data)
            activations.get(split, 1)
            assert (activations.misses, activations.hits) == (1, 0)

    def test_layers_above_the_cut_do_not_change_the_key(self, task: Pictures, folder: Path) -> None:
        kept_in(folder, backbone(), task).get("train", 2)
        retrained = backbone()
        top = retrained.model.get_layer("conv_3")
        top.set_weights([w + 1 for w in top.get_weights()])
        activations = kept_in(folder, retrained, task)
        activations.get("train", 2)
        activations.get("train", 0)
        assert (activations.misses, activations.hits) == (1, 1)

    def test_a_lower_cut_in_a_file_serves_a_higher_one(
        self, small: Backbone, task: Pictures, folder: Path
    ) -> None:
        kept_in(folder, small, task).get("train", 3)
        activations = kept_in(folder, small, task)
        np.testing.assert_array_equal(
            activations.get("train", 1), ActivationCache(small, task).get("train", 1)
        )
        assert activations.derived == 1

    def test_a_damaged_file_is_computed_again_and_noted(
        self, small: Backbone, task: Pictures, folder: Path
    ) -> None:
        expected = np.array(kept_in(folder, small, task).get("train", 1))
        (path,) = folder.glob("*.arrow")
        path.write_bytes(path.read_bytes()[:-1000])
        activations = kept_in(folder, small, task)
        np.testing.assert_array_equal(activations.get("train", 1), expected)
        assert activations.misses == 1
        assert ["computed again" in note for note in activations.notes] == [True]

    def test_without_a_usable_folder_activations_are_kept_in_memory(
        self, small: Backbone, task: Pictures, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        activations = kept_in(tmp_path / "file" / "cache", small, task, disk_budget=10**9)
        np.testing.assert_array_equal(
            activations.get("train", 1), ActivationCache(small, task).get("train", 1)
        )
        assert activations.get("train", 1) is activations.get("train", 1)
        assert activations.notes
        assert activations.bytes["memory"] > 0

    def test_a_decision_counts_the_cached_views(self, small: Backbone, task: Pictures, folder: Path) -> None:
        activations = kept_in(folder, small, task, views=2)
        for view in range(2):
            activations.get("train", 1, strength=0.5, view=view)
        decision = kept_in(folder, small, task, views=2).decide(1, 20, strength=0.5)
        assert decision.reuse
        assert (decision.place, decision.kept, decision.views) == ("disk", 2, 2)


class TestRange:
    def test_values_beyond_float16_are_kept_as_float32(self, task: Pictures) -> None:
        network = backbone(lambda x: keras.layers.Rescaling(1e6)(x))
        found = ActivationCache(network, task).get("train", 0)
        assert found.dtype == np.float32
        assert found.max() > 65504
        assert error(found, exact(network, 0, task.split("train").images)) < 2e-3

    def test_values_too_small_for_float16_are_kept_as_float32(self, task: Pictures) -> None:
        network = backbone(lambda x: keras.layers.Rescaling(1e-9)(x))
        network.model.get_layer("norm_3").set_weights(
            [np.ones(16), np.zeros(16), np.zeros(16), np.ones(16) - 1e-3]
        )
        found = ActivationCache(network, task).get("train", 0)
        assert found.dtype == np.float32
        assert error(found, exact(network, 0, task.split("train").images)) < 2e-3

    @pytest.mark.parametrize("on_disk", [False, True])
    def test_a_single_image_out_of_range_is_noticed(self, tmp_path: Path, on_disk: bool) -> None:
        task = Pictures(counts=(300, 30, 30))
        network = backbone(lambda x: keras.layers.Rescaling(1.0)(x))
        images = task.split("train").images
        images[:] = images // 8 + 110  # near the middle of the range, but for one image of the second piece
        images[290] = np.random.default_rng(0).integers(0, 2, images[290].shape) * 255
        peaks = exact(network, 0, images).max(axis=1)
        scale = 65504 / np.sort(peaks)[-2:].mean()
        kernel = network.model.get_layer("norm_3")
        kernel.set_weights([w * (scale if index < 2 else 1) for index, w in enumerate(kernel.get_weights())])
        activations = kept_in(tmp_path, network, task) if on_disk else ActivationCache(network, task)
        found = activations.get("train", 0)
        assert activations.stages.fits_float16(0)
        assert found.dtype == np.float32
        assert (found > 65504).any(axis=1).sum() == 1
        assert error(found, exact(network, 0, images)) < 2e-3
        training = begin(
            TrialConfig("finetune", {**PARAMS, "learning_rate": 1e-9}, epochs=1), _bench(network, task)
        )
        assert np.isfinite(training.run_epoch().train_loss)
        training.release()


@pytest.fixture(scope="module")
def network() -> Backbone:
    """Its third block is restless."""
    return backbone(NoiseInInference())


class TestNondeterministicPrefix:
    def test_a_prefix_that_is_not_deterministic_is_refused_with_the_block(
        self, network: Backbone, task: Pictures
    ) -> None:
        activations = ActivationCache(network, task)
        decision = activations.decide(0, 20)
        assert not decision.reuse
        assert f"refused: block {network.blocks[2].name!r} is not deterministic" in decision.reason
        assert activations.get("train", 0) is None
        assert activations.bytes["memory"] == 0

    def test_cuts_below_it_are_kept(self, network: Backbone, task: Pictures) -> None:
        activations = ActivationCache(network, task)
        assert activations.decide(2, 20).reuse
        assert activations.get("train", 2) is not None

    def test_evaluation_computes_activations_again(self, network: Backbone, task: Pictures) -> None:
        activations = ActivationCache(network, task)
        one, other = (np.concatenate(list(activations.chunks("validation", 0))) for _ in range(2))
        assert len(one) == 30
        assert not np.array_equal(one, other)

    def test_trials_train_on_images(self, network: Backbone, task: Pictures) -> None:
        training = begin(TrialConfig("finetune", PARAMS, epochs=2), _bench(network, task))
        assert training.program.shape.exact is False
        assert np.isfinite(training.run_epoch().train_loss)
        assert "refused" in str(training.decision)
        training.release()


class TestBudget:
    def test_activations_above_half_of_the_budget_are_not_kept(self, small: Backbone, task: Pictures) -> None:
        activations = ActivationCache(small, task, budget=3_000)
        assert not activations.fits("train", 0)
        assert activations.get("train", 0) is None
        decision = activations.decide(0, 20)
        assert not decision.reuse
        assert "exceed" in decision.reason

    def test_activations_that_do_not_fit_are_computed_in_chunks(
        self, small: Backbone, task: Pictures
    ) -> None:
        pieces = list(ActivationCache(small, task, budget=0).chunks("validation", 1))
        np.testing.assert_array_equal(
            np.concatenate(pieces), ActivationCache(small, task).get("validation", 1)
        )

    def test_the_least_recently_used_activations_are_evicted_first(
        self, small: Backbone, task: Pictures
    ) -> None:
        one = ActivationCache(small, task).get("train", 0)
        activations = ActivationCache(small, task, budget=3 * one.nbytes)
        for view in (0, 1, 2, 0, 3):
            activations.get("train", 0, strength=1.0, view=view)
        assert activations.bytes["memory"] == 3 * one.nbytes
        misses = activations.misses
        activations.get("train", 0, strength=1.0, view=0)
        assert activations.misses == misses
        activations.get("train", 0, strength=1.0, view=1)
        assert activations.misses == misses + 1

    def test_no_frozen_block_and_no_views_give_a_decision_without_reuse(
        self, small: Backbone, task: Pictures
    ) -> None:
        assert ActivationCache(small, task).decide(4, 20).reason == "nothing is frozen"
        assert "0 views" in ActivationCache(small, task, views=0).decide(1, 20, strength=0.5).reason
        assert ActivationCache(small, task, views=0).decide(1, 20).reuse


PARAMS = {"unfreeze_depth": 0, "learning_rate": 1e-2, "head_units": 0, "augmentation_strength": 0.0}


def _bench(network: Backbone, task: Pictures, **options: Any) -> Workbench:
    return Workbench(network, task, ActivationCache(network, task, **options))


def _run(bench: Workbench, seed: int = 1, live: bool = False, **params: Any) -> tuple[list[float], Any]:
    config = TrialConfig("finetune", {**PARAMS, **params}, epochs=4, batch_size=16, seed=seed, live=live)
    training = begin(config, bench)
    metrics = [training.run_epoch() for _ in range(4)]
    training.release()
    return [number for m in metrics for number in (m.train_loss, m.val_loss)], training


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("augmentation", [{}, {"augmentation_strength": 0.5}, {"horizontal_flip": True}])
def test_a_trial_on_cached_activations_equals_one_on_images(
    small: Backbone, task: Pictures, depth: int, augmentation: dict[str, Any]
) -> None:
    params = {"unfreeze_depth": depth, "dropout": 0.2, **augmentation}
    kept, first = _run(_bench(small, task), **params)
    computed, second = _run(_bench(small, task, budget=0), **params)
    assert first.decision.reuse
    assert not second.decision.reuse
    np.testing.assert_allclose(kept, computed, rtol=1e-4)


def test_without_views_every_epoch_has_its_own_distortions(small: Backbone, task: Pictures) -> None:
    shared, first = _run(_bench(small, task), augmentation_strength=0.6)
    own, second = _run(_bench(small, task, views=0), augmentation_strength=0.6)
    assert (first.feed.strength, second.feed.strength) == (0.5, 0.6)
    assert shared != own


def test_a_winner_is_confirmed_on_images_even_if_activations_are_cached(
    small: Backbone, task: Pictures
) -> None:
    bench = _bench(small, task)
    _run(bench, unfreeze_depth=1)
    misses, hits = bench.activations.misses, bench.activations.hits
    confirmed, training = _run(bench, unfreeze_depth=1, live=True)
    assert not training.decision.reuse
    assert training.program.shape.exact
    assert (bench.activations.misses, bench.activations.hits) == (misses, hits)
    np.testing.assert_allclose(confirmed, _run(bench, unfreeze_depth=1)[0], rtol=5e-3)


def test_a_second_trial_of_a_shape_reads_and_traces_nothing_new(small: Backbone, task: Pictures) -> None:
    bench = _bench(small, task)
    _, first = _run(bench, unfreeze_depth=1, augmentation_strength=0.5)
    misses, traces = bench.activations.misses, first.program.traces
    _, second = _run(bench, seed=2, unfreeze_depth=1, augmentation_strength=0.5, learning_rate=1e-3)
    assert second.program is first.program
    assert second.program.traces == traces
    assert bench.activations.misses == misses


def test_a_trial_continues_when_its_activations_can_no_longer_be_kept(
    small: Backbone, task: Pictures, tmp_path: Path
) -> None:
    params = {**PARAMS, "unfreeze_depth": 1, "augmentation_strength": 0.5}
    expected, _ = _run(_bench(small, task), **params)
    folder = tmp_path / "cache"
    bench = Workbench(small, task, kept_in(folder, small, task, budget=0, disk_budget=10**9))
    training = begin(TrialConfig("finetune", params, epochs=4, batch_size=16, seed=1), bench)
    assert training.decision.place == "disk"
    metrics = [training.run_epoch(), training.run_epoch()]
    shutil.rmtree(folder)
    folder.touch()
    metrics += [training.run_epoch(), training.run_epoch()]
    training.release()
    assert len(bench.activations.notes) >= 1
    np.testing.assert_allclose([n for m in metrics for n in (m.train_loss, m.val_loss)], expected, rtol=1e-4)
