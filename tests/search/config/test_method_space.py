"""The method as a parameter of the search, and the parameters of each method."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from example_records import search
from rich.console import Console

from search import SearchConfig
from search.config.choices import baseline_epoch_factor
from search.config.parameters import parameters
from search.config.ranges import Choice
from search.config.space import Space, make_space
from search.ledger.sampling.samplers import make_sampler
from search.ledger.sampling.tpe import new_shared_space
from search.records.formatting import COLUMN_HEADINGS
from search.views.trial_table import terminal_trial_table
from trainables.errors import UsageError

METHODS = ("finetune", "reweight", "align")
OWN = {
    "reweight": {"weighting", "source_share", "weight_clip", "weight_temperature"},
    "align": {"alignment", "alignment_weight", "alignment_schedule", "alignment_layer"},
}


def suggested(space: Space, count: int = 40) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [space.suggest(study.ask()) for _ in range(count)]


def test_each_trial_has_the_parameters_of_its_method() -> None:
    space = make_space("full", 4, "all", METHODS)
    found = suggested(space)
    assert {params["method"] for params in found} == set(METHODS)
    for params in found:
        for method, names in OWN.items():
            assert params["method"] == method or not names & set(params)
        assert "unfreeze_depth" in params
        if params["method"] == "reweight":
            assert ("weight_clip" in params) == (params["weighting"] != "tradaboost")
        if params["method"] == "align":
            assert ("alignment_layer" in params) == (params["head_units"] > 0)
        assert space.check(params) == params
    assert next(iter(space.ranges)) == "method"


def test_the_live_table_shows_the_method_and_its_parameters() -> None:
    assert set(parameters(4)) <= set(COLUMN_HEADINGS)
    assert len(set(COLUMN_HEADINGS.values())) == len(COLUMN_HEADINGS)
    params = {"method": "align", "unfreeze_depth": 1, "alignment": "coral", "alignment_weight": 0.5}
    shown = search(1)
    shown = replace(shown, trials=(replace(shown.trials[0], params=params),))
    console = Console(file=io.StringIO(), width=160)
    console.print(terminal_trial_table(shown, 5, 160, ascii_only=True))
    heads, row = str(console.file.getvalue()).splitlines()[:2]  # type: ignore[attr-defined]
    assert {"method", "depth", "align", "lambda"} <= set(heads.split())
    assert {"align", "coral", "0.5"} <= set(row.split())


def test_a_single_method_is_not_a_parameter() -> None:
    for method in METHODS:
        ranges = make_space("full", 4, method).ranges
        assert "method" not in ranges
        assert {name for names in OWN.values() for name in names} & set(ranges) == OWN.get(method, set())


def test_all_searches_only_methods_that_can_run() -> None:
    assert make_space("core", 4, "all", ("finetune", "align")).ranges["method"] == Choice(
        ("finetune", "align")
    )
    assert SearchConfig(method="all").methods == ("finetune",)
    assert set(METHODS) <= set(SearchConfig(method="all", source="digits").methods)
    blind = SearchConfig(method="all", source="digits", unlabelled_target=True)
    assert blind.methods == ("reweight", "align")


def test_parameters_that_need_labels_are_not_suggested_without_labels() -> None:
    ranges = make_space("full", 4, "all", ("reweight", "align"), unlabelled=True).ranges
    assert ranges["weighting"] == Choice(("odds", "kmm"))
    assert not {"source_share", "head_init"} & set(ranges)


def test_a_space_file_may_restrict_the_methods(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "method: [finetune, align]\nalignment: dann\nlearning_rate: {low: 1.0e-4, high: 1.0e-2}\n"
    )
    space = make_space(str(file), 4, "all", METHODS)
    assert space.ranges["method"] == Choice(("finetune", "align"))
    for params in suggested(space, 10):
        assert ("alignment" in params) == (params["method"] == "align")
        assert params.get("alignment", "dann") == "dann"
    assert "method" not in make_space(str(file), 4, "align").ranges


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (
            {"weighting": "odds"},
            "weighting: expected together with method, on which it depends, received 'odds'",
        ),
        (
            {"method": "align", "unfreeze_depth": 0, "weighting": "odds"},
            "weighting: expected only where method is reweight",
        ),
        (
            {"method": "reweight", "weighting": "tradaboost", "weight_clip": 3.0},
            "weight_clip: expected only where weighting is odds or kmm",
        ),
        ({"method": "scratch"}, "method: expected one of finetune, reweight, align, received 'scratch'"),
    ],
)
def test_a_parameter_that_does_not_fit_the_method_is_named(params: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_space("full", 4, "all", METHODS).check(params)


def test_tpe_learns_the_best_method_and_its_parameters() -> None:
    """The parameters of a method are conditional on it. Here align is best, with a weight of 10."""
    space = make_space("full", 4, "all", METHODS)
    study = optuna.create_study(direction="maximize")
    common, later = new_shared_space(), []
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for number in range(70):
        study.sampler = make_sampler("tpe", 3, number, common)
        trial = study.ask()
        params = space.suggest(trial)
        near = -abs(float(params["alignment_weight"]) - 10) / 10 if params["method"] == "align" else -1.5
        study.tell(trial, near)
        if number >= 40:
            later.append(params)
    chosen = Counter(params["method"] for params in later)
    assert chosen["align"] > 20
    weights = [float(p["alignment_weight"]) for p in later if p["method"] == "align"]
    assert sum(3 < w < 20 for w in weights) > len(weights) / 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"method": "reweight"},
            "method: 'reweight' expected --source DATA, which it transfers from, received none",
        ),
        ({"method": "align"}, "method: 'align' expected --source DATA"),
        (
            {"method": "finetune", "unlabelled_target": True},
            "expected one of reweight, align, source with --unlabelled-target, received 'finetune'",
        ),
        (
            {"method": "all", "unlabelled_target": True},
            "expected a method that needs no labels of the target",
        ),
        ({"method": "al"}, "expected one of .*, all"),
    ],
)
def test_a_method_without_its_required_options_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SearchConfig(**options)


@pytest.mark.parametrize(
    ("target", "source", "times"), [(100, 100, 2), (40, 100, 3.5), (10, 10_000, 10), (100, 0, 1)]
)
def test_baselines_without_the_source_take_as_many_steps(target: int, source: int, times: float) -> None:
    assert baseline_epoch_factor(target, source) == times


def test_without_labels_trials_are_compared_by_val_loss() -> None:
    asked: dict[str, Any] = {"method": "align", "source": "digits", "unlabelled_target": True}
    config = SearchConfig(**asked)
    assert (config.metric, config.direction) == ("val_loss", "minimize")
    assert config.replace(trials=3).metric == "val_loss"
    assert SearchConfig(**asked, metric="val_accuracy").metric == "val_accuracy"
    assert SearchConfig(method="align", source="digits").metric == "val_accuracy"


def test_baselines_of_each_method() -> None:
    source = {"source": "digits"}
    assert SearchConfig().baselines == ("scratch",)
    assert SearchConfig(method="scratch").baselines == ()
    assert SearchConfig(method="all", **source).baselines == ("scratch",)
    assert SearchConfig(method="align", **source).baselines == ("finetune", "source", "scratch")
    assert SearchConfig(method="align", unlabelled_target=True, **source).baselines == ("source",)
