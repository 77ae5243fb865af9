"""Each kind of reuse can be switched off, and then nothing is reused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from search import SearchConfig, run_search
from trainables.errors import UsageError
from trainables.reuse import REUSABLE_PARTS, Reuse


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("all", "all"),
        (" None ", "none"),
        ("heads, Programs", "programs,heads"),
        (["views", "processes"], "processes,views"),
        ([], "none"),
        (",".join(REUSABLE_PARTS), ",".join(REUSABLE_PARTS)),
    ],
)
def test_reuse_accepts_all_none_or_a_list(given: Any, kept: str) -> None:
    assert SearchConfig(reuse=given).reuse == kept


@pytest.mark.parametrize("given", ["al", "programs,programms", "all,heads", 3, ["heads", "all"]])
def test_an_unknown_kind_of_reuse_is_refused_with_the_valid_ones(given: Any) -> None:
    with pytest.raises(UsageError, match="reuse: expected"):
        SearchConfig(reuse=given)


@pytest.mark.parametrize("part", REUSABLE_PARTS)
def test_a_kind_of_reuse_that_is_not_named_is_off(part: str) -> None:
    others = ",".join(p for p in REUSABLE_PARTS if p != part)
    reused = SearchConfig(reuse=others, views=3).reuse_settings
    assert {p: bool(getattr(reused, p)) for p in REUSABLE_PARTS} == {p: p != part for p in REUSABLE_PARTS}
    assert SearchConfig(reuse="none", views=3).reuse_settings.views == 0
    assert SearchConfig(views=3).reuse_settings.views == 3


def test_a_relative_cache_is_resolved_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reused = SearchConfig(cache="kept ü", cache_budget="1.5 GB").reuse_settings
    assert (reused.cache, reused.cache_budget) == (str(tmp_path / "kept ü"), 1_500_000_000)
    assert SearchConfig(cache="OFF").reuse_settings.cache == "off"
    assert SearchConfig(cache=False).reuse_settings.cache == "off"
    assert SearchConfig().reuse_settings == Reuse()


@pytest.mark.parametrize("budget", ["much", -1, True, "5 XB"])
def test_an_invalid_cache_budget_is_refused(budget: Any) -> None:
    with pytest.raises(UsageError, match="cache_budget: expected a number of bytes"):
        SearchConfig(cache_budget=budget)


@pytest.mark.slow
@pytest.mark.cluster
def test_without_reuse_each_trial_has_its_own_process_and_programs(tmp_path: Path) -> None:
    config = SearchConfig(
        reuse="none",
        trials=2,
        epochs=1,
        baseline_trials=0,
        confirm_seeds=1,
        max_concurrent=1,
        register=False,
        probe="off",
        finalists=1,
        refit=False,
        storage=tmp_path / "ü",
        enqueue=_head_only(tmp_path / "two.jsonl"),
    )
    trials = run_search(config).record.trials
    assert [t.state for t in trials] == ["complete", "complete"]
    assert [(t.cost["reuse"], t.cost["programs_compiled"]) for t in trials] == [(False, 1), (False, 1)]


def _head_only(file: Path) -> str:
    params = {"unfreeze_depth": 0, "learning_rate": 1e-3, "head_units": 0, "augmentation_strength": 0.0}
    file.write_text(f"{json.dumps(params)}\n" * 2)
    return str(file)
