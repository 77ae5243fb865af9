"""What a search says of its model version, on a real SQLite store: the aliases are read when it is said."""

from __future__ import annotations

import io
from pathlib import Path

import example_records
import pytest
from registered_model import Model, answers
from rich.console import Console

from search.records.record import Outcome
from search.registry.versions import NOT_PROPOSED_TAG
from search.study.model_versions import model_state
from search.tracking.stores import default_tracking_uri
from search.views.summary import print_summary

WINNER = example_records.trial(4)


def said(outcome: Outcome, uri: str) -> str:
    """What the terminal shows at the end of a search, or of the same command afterwards."""
    console = Console(file=io.StringIO(), width=300)
    with console.capture() as captured:
        record = example_records.search(outcome=outcome)
        print_summary(record, None, console, model_state(outcome, uri))
    return captured.get()


def test_a_search_that_is_run_again_names_no_alias_that_points_elsewhere(tmp_path: Path) -> None:
    model = Model(tmp_path, "unfreeze-pets")
    mine = model.add(answers(5))
    outcome = example_records.outcome(WINNER, model_name=model.name, model_version=mine)
    assert f"unfreeze-pets version {mine}, alias challenger\n" in said(outcome, model.uri)
    newer = model.add(answers(5))
    shown = said(outcome, model.uri)
    assert f"unfreeze-pets version {mine}\n" in shown
    assert f"the challenger is version {newer}" in shown
    assert "alias" not in shown
    assert f"unfreeze promote unfreeze-pets --version {mine} " in shown
    model.client.set_registered_model_alias(model.name, "champion", mine)
    assert f"unfreeze-pets version {mine}, alias champion\n" in said(outcome, model.uri)
    model.client.set_model_version_tag(model.name, newer, NOT_PROPOSED_TAG, "it is poor")
    model.client.delete_registered_model_alias(model.name, "challenger")
    other = example_records.outcome(WINNER, model_name=model.name, model_version=newer)
    assert "not proposed as challenger: it is poor" in said(other, model.uri)
    model.client.delete_model_version(model.name, mine)
    assert "deleted from the registry" in said(outcome, model.uri)
    model.client.delete_registered_model(model.name)
    assert model_state(outcome, model.uri) == ""


@pytest.mark.parametrize("changes", [{"model_name": None}, {"model_version": None}])
def test_nothing_is_said_of_a_model_that_is_not_registered(tmp_path: Path, changes: dict[str, None]) -> None:
    uri = default_tracking_uri(tmp_path)
    assert model_state(example_records.outcome(WINNER, **changes), uri) == ""
    assert model_state(None, uri) == ""
    assert not list(tmp_path.iterdir())
