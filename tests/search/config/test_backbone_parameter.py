"""The backbone as a parameter: in the space, in the configuration, and in the samplers that learn depths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import IntDistribution

from search.config.config_file import load_config
from search.config.search_config import SearchConfig
from search.config.space import Choice, IntRange, Space, core_space, full_space, load_space
from search.ledger.sampling.tpe import (
    IncrementalTPESampler,
    depth_to_fraction,
    fraction_to_depth,
    new_shared_space,
)
from search.ledger.workspace import Workspace
from search.study.early_checks import check_inputs
from search.study.resolved_inputs import DataSources
from trainables.errors import UsageError
from trainables.modalities.image.datasets import prepare

BLOCKS = {"small": 3, "large": 12}


@pytest.fixture(autouse=True, scope="module")
def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def several(maker: Any = core_space) -> Space:
    space: Space = maker(12, backbones=BLOCKS)
    return space


def test_one_backbone_is_text_and_not_a_parameter() -> None:
    assert SearchConfig(backbone=["print"]).backbone == "print"
    assert SearchConfig().backbones == ("print",)
    assert "backbone" not in core_space(4).ranges


def test_several_backbones_are_a_tuple_in_yaml_flags_and_json(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("backbone: [print, MobileNetV2]\n")
    config = load_config(tmp_path / "c.yaml")
    assert config.backbones == ("print", "MobileNetV2")
    assert SearchConfig.model_validate(config.model_dump(mode="json")) == config
    assert load_config(None, {"backbone": ["a.keras", "b.keras"]}).backbone == ("a.keras", "b.keras")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone": ["print", "print"]}, "--backbone: expected each backbone once"),
        ({"backbone": []}, "--backbone: expected at least one backbone"),
        ({"backbone": ["print", 3]}, "--backbone: expected text"),
        (
            {"backbone": ["print", "b.keras"], "weights": "w.h5"},
            "--weights: expected default, imagenet or none",
        ),
    ],
)
def test_invalid_lists_of_backbones_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_config(None, changes)


@pytest.mark.parametrize(("option", "more"), [("backbone", {}), ("teacher", {"method": "distill"})])
def test_a_missing_registered_model_is_refused_before_anything_is_written(
    tmp_path: Path, option: str, more: dict[str, Any]
) -> None:
    config = SearchConfig(**{option: "models:/pets@champion"}, storage=str(tmp_path / "runs"), **more)
    words = f"{option}: expected a model of a registry, received 'models:/pets@champion', but .* has none"
    with pytest.raises(UsageError, match=words):
        check_inputs(config, Workspace(tmp_path / "runs", "digits"), DataSources(tmp_path))
    assert not list(tmp_path.iterdir())


def test_the_range_of_depths_ends_at_the_blocks_of_the_trial_s_backbone() -> None:
    space = several()
    assert list(space.ranges)[:2] == ["backbone", "unfreeze_depth"]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = [space.suggest(study.ask()) for _ in range(200)]
    for name, blocks in BLOCKS.items():
        depths = {p["unfreeze_depth"] for p in found if p["backbone"] == name}
        assert depths == set(range(blocks + 1))
    assert all(
        t.params == p for t, p in zip(study.trials, found, strict=True)
    )  # the name in Optuna is part of the contract


def test_the_baseline_searches_the_same_backbones() -> None:
    space = core_space(12, "scratch", backbones=BLOCKS)
    assert space.ranges["backbone"] == Choice(("large", "small"))
    assert "unfreeze_depth" not in space.ranges


def test_configurations_are_checked_against_their_backbone() -> None:
    space = several(full_space)
    assert space.check({"unfreeze_depth": 12, "backbone": "large"})["unfreeze_depth"] == 12
    with pytest.raises(UsageError, match="unfreeze_depth: expected a whole number from 0 to 3, received 4"):
        space.check({"backbone": "small", "unfreeze_depth": 4})
    with pytest.raises(UsageError, match="unfreeze_depth: expected together with backbone"):
        space.check({"unfreeze_depth": 1})
    with pytest.raises(UsageError, match="backbone: expected one of large, small"):
        space.check({"backbone": "middle"})


def test_training_all_blocks_of_a_backbone_is_not_at_an_edge_of_the_space() -> None:
    space = several()
    assert space.parameters_at_edge({"backbone": "small", "unfreeze_depth": 3}) == ()
    assert space.parameters_at_edge({"backbone": "large", "unfreeze_depth": 12}) == ()


def test_a_space_file_may_restrict_backbones_and_needs_depths_that_each_has(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("unfreeze_depth: {low: 2, high: 12, step: 2}\nbackbone: [large]\n")
    assert load_space(file, 12, backbones=BLOCKS).ranges["backbone"] == Choice(("large",))
    file.write_text("unfreeze_depth: {low: 1, high: 12}\n")
    space = load_space(file, 12, backbones=BLOCKS)
    assert space.ranges["backbone"] == Choice(("large", "small"))
    assert space.ranges["unfreeze_depth"] == IntRange(1, 12)
    for content in ("unfreeze_depth: {low: 4, high: 12}\n", "unfreeze_depth: [0, 4]\n"):
        file.write_text(content)
        with pytest.raises(UsageError, match=r"s\.yaml.*received 4, but small has 3 blocks"):
            load_space(file, 12, backbones=BLOCKS)


@pytest.mark.parametrize(
    "depths", [IntDistribution(0, 3), IntDistribution(2, 12, step=5), IntDistribution(1, 1)]
)
def test_depths_survive_conversion_to_fractions_which_are_spread_evenly(depths: IntDistribution) -> None:
    possible = list(range(depths.low, depths.high + 1, depths.step))
    assert [fraction_to_depth(depth_to_fraction(d, depths), depths) for d in possible] == possible
    drawn = [fraction_to_depth(share, depths) for share in np.linspace(0, 1, 1001)]
    counts = [drawn.count(d) for d in possible]
    assert max(counts) - min(counts) <= 2
    assert sum(counts) == len(drawn)


def searched(sampler: str, seed: int, trials: int) -> list[dict[str, Any]]:
    """Return a made-up accuracy: half of the blocks are best, and the large backbone is slightly better."""
    space, common = several(), new_shared_space()
    study = optuna.create_study(direction="maximize")
    for number in range(trials):
        own = 1000 * seed + number
        study.sampler = (
            IncrementalTPESampler(own, common)
            if sampler == "tpe"
            else optuna.samplers.RandomSampler(seed=own)
        )
        trial = study.ask()
        params = space.suggest(trial)
        share = int(params["unfreeze_depth"]) / BLOCKS[str(params["backbone"])]
        rate = np.log10(float(params["learning_rate"])) + 2.5
        value = 0.05 * (params["backbone"] == "large") - (share - 0.5) ** 2 - 0.1 * rate**2
        study.tell(trial, float(value))
    return [{**t.params, "value": t.value} for t in study.trials]


def test_tpe_learns_depths_across_backbones_and_is_better_than_random() -> None:
    last = {s: [t["value"] for n in range(6) for t in searched(s, n, 30)[15:]] for s in ("tpe", "random")}
    assert np.mean(last["tpe"]) > np.mean(last["random"]) + 0.02


def test_tpe_proposes_depths_in_the_range_of_their_backbone() -> None:
    found = searched("tpe", 3, 40)
    assert {t["backbone"] for t in found} == set(BLOCKS)
    assert all(0 <= t["unfreeze_depth"] <= BLOCKS[t["backbone"]] for t in found)


def test_splits_hold_the_same_images_at_another_input_size(tmp_path: Path) -> None:
    from digit_tasks import digits
    from PIL import Image

    images, labels = digits()
    for row in range(60):
        folder = tmp_path / "photos" / str(labels[row])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[row]).save(folder / f"{row}.png")
    data = str(tmp_path / "photos")
    small = prepare(data, image_size=(8, 8), directory=tmp_path / "small")
    alone = prepare(data, image_size=(12, 12), directory=tmp_path / "alone")
    large = prepare(data, image_size=(12, 12), directory=tmp_path / "large", like=small)

    def names(task: Any) -> dict[str, list[str]]:
        return {split: task.split(split).ids[:] for split in task.counts}

    assert names(large) == names(small) == names(alone)
    again = prepare(data, image_size=(12, 12), directory=tmp_path / "large", like=small)
    assert again.digest == large.digest


def test_tables_show_the_end_of_a_long_path() -> None:
    from search.records.formatting import format_value
    from search.report.analysis.wording import format_number as in_report

    for shown in (format_value, in_report):
        assert [shown(v) for v in ("/home/me/my nets/small.keras", "models:/photos@champion", "print")] == [
            "small.keras",
            "photos@champion",
            "print",
        ]
