"""Promotion in MLflow's registry on a real SQLite store: the alias, the history, simultaneous commands, crashes.

Versions are folders with the predictions of made-up models: nothing here needs TensorFlow.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from typing import Any

import pytest
from mlflow import MlflowClient
from registered_model import IMAGES, Model, answers, footprint
from simultaneous import at_once

from search.cli import main
from search.fault_injection import KILL_AT_VARIABLE
from search.records.predictions import PREDICTIONS_FILE, PredictionRecord
from search.records.record import Interval, Outcome
from search.records.results import outcome_from_json, outcome_to_json
from search.registry import (
    AmbiguousChallenger,
    PromotionRefused,
    history,
    judge,
    promote,
    promotion,
    rollback,
)
from search.registry.front_versions import FRONT_TAG, OBJECTIVES_TAG
from search.registry.promotion import PREVIOUS_CHAMPIONS
from search.registry.versions import NOT_PROPOSED_TAG
from search.tracking.tags import TEST_DIGEST_TAG, footprint_of, footprint_tags
from trainables.errors import TrackingError, UsageError


def test_a_better_challenger_becomes_champion_and_the_history_records_why(model: Model) -> None:
    first = model.add(answers(40, scratch=90))
    assert promote(model.name, model.uri).champion.version == first == model.alias("champion")
    second = model.add(answers(5))
    done = promote(model.name, model.uri)
    assert (done.champion.version, done.before and done.before.version) == (second, first)
    assert done.judgement is not None
    assert done.judgement.decision == "better"
    events = history(model.name, model.uri)
    assert [(e.number, e.kind, e.version, e.before, e.decision, e.done) for e in events] == [
        (1, "promoted", "1", None, "first", True),
        (2, "promoted", "2", "1", "better", True),
    ]
    assert (events[1].search, events[1].trial, events[1].forced) == ("photos ü", 7, False)
    assert events[1].numbers["champion_gain"] == pytest.approx(35 / IMAGES, abs=1e-6)
    assert events[1].numbers["only_challenger_right"] == 35
    assert events[0].numbers["scratch_gain"] == pytest.approx(50 / IMAGES, abs=1e-6)
    assert max(len(value) for value in model.tags().values()) < 5000
    assert not any("turn" in key for key in model.tags())


@pytest.mark.parametrize(
    ("given", "size", "decision"),
    [
        (answers(60), 1_000_000, "worse"),
        (answers(40), 1_000_000, "not better"),
        (answers(5, classes=("a", "b", "d")), 1_000_000, "not comparable"),
        (None, 1_000_000, "unknown"),
    ],
)
def test_any_other_challenger_is_refused_unless_forced(
    model: Model, given: PredictionRecord | None, size: int, decision: str
) -> None:
    model.add(answers(40))
    promote(model.name, model.uri)
    model.add(given, size)
    with pytest.raises(PromotionRefused, match=r"version 2 of model .* stays challenger: ") as refused:
        promote(model.name, model.uri)
    assert refused.value.comparison.judgement.decision == decision
    assert model.alias("champion") == "1"
    assert len(history(model.name, model.uri)) == 1
    assert promote(model.name, model.uri, force=True).forced
    event = history(model.name, model.uri)[-1]
    assert (event.forced, event.decision, event.version) == (True, decision, "2")
    assert event.reason == refused.value.comparison.judgement.reason
    assert model.client.get_model_version(model.name, "2").tags["unfreeze.forced"] == "true"


def test_an_equally_good_and_cheaper_challenger_is_promoted(model: Model) -> None:
    model.add(answers(40))
    promote(model.name, model.uri)
    model.add(answers(40), size=300_000)
    assert promote(model.name, model.uri).judgement.decision == "cheaper"  # type: ignore[union-attr]


def test_unnecessary_force_is_not_recorded_as_an_override(model: Model) -> None:
    model.add(answers(5))
    assert not promote(model.name, model.uri, force=True).forced
    assert not history(model.name, model.uri)[0].forced


def test_judge_changes_nothing(model: Model) -> None:
    model.add(answers(5))
    before = model.tags()
    assert judge(model.name, model.uri).judgement.passes
    assert (model.alias("champion"), model.tags()) == (None, before)


def test_rollbacks_are_part_of_the_history(model: Model) -> None:
    for wrong in (80, 40, 5):
        model.add(answers(wrong))
        promote(model.name, model.uri)
    assert rollback(model.name, model.uri).champion.version == "2"
    assert rollback(model.name, model.uri).champion.version == "1" == model.alias("champion")
    events = history(model.name, model.uri)
    assert [(e.kind, e.before, e.version) for e in events[3:]] == [
        ("rolled back", "3", "2"),
        ("rolled back", "2", "1"),
    ]
    assert events[-1].decision is None
    with pytest.raises(TrackingError, match="is its first champion"):
        rollback(model.name, model.uri)
    assert len(history(model.name, model.uri)) == 5


def test_predictions_that_do_not_match_the_tag_are_refused(model: Model) -> None:
    model.add(answers(5), **{"unfreeze.other": "x"})
    model.client.set_model_version_tag(model.name, "1", TEST_DIGEST_TAG, "e" * 64)
    with pytest.raises(TrackingError, match="expected predictions for the test images eeee"):
        promote(model.name, model.uri)
    (model.folder / "1" / PREDICTIONS_FILE).write_bytes(b"nonsense")
    with pytest.raises(
        TrackingError, match=r"version 1 .*answers\.parquet: expected a file of test predictions"
    ):
        promote(model.name, model.uri)


def test_an_overwritten_tag_is_left_out_of_the_history(model: Model) -> None:
    model.add(answers(5))
    promote(model.name, model.uri)
    model.client.set_registered_model_tag(model.name, "unfreeze.event.000002", "what is this?")
    assert len(history(model.name, model.uri)) == 1


def test_a_footprint_is_read_from_its_tags() -> None:
    assert footprint_of(footprint_tags(footprint())) == footprint()
    assert footprint_of({}) is None
    assert footprint_tags(None) == {}


def in_a_process(model: Model, call: str, **environment: str) -> subprocess.Popen[str]:
    code = (
        "import sys\nfrom search.registry import promote, rollback\n"
        "from trainables.errors import UnfreezeError\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
        f"try:\n    print({call}(sys.argv[1], sys.argv[2]).champion.version)\n"
        "except UnfreezeError as error:\n    print(error)\n    sys.exit(3)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, model.name, model.uri],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.slow
def test_of_simultaneous_promotions_one_succeeds_and_the_others_are_refused(model: Model) -> None:
    model.add(answers(40))
    promote(model.name, model.uri)
    model.add(answers(5))
    ends = at_once(*(in_a_process(model, "promote") for _ in range(3)))
    assert [code for code, _ in ends] == [0, 3, 3]
    assert ends[0][1] == "2" == model.alias("champion")
    for _, told in ends[1:]:
        assert "was changed by another command at the same time" in told or "is the champion already" in told
    assert [(e.number, e.version) for e in history(model.name, model.uri)] == [(1, "1"), (2, "2")]
    assert model.tags()[PREVIOUS_CHAMPIONS] == "1"
    assert not any("turn" in key for key in model.tags())


@pytest.mark.slow
def test_of_simultaneous_rollbacks_one_succeeds_and_the_other_is_refused(model: Model) -> None:
    for wrong in (80, 40, 5):
        model.add(answers(wrong))
        promote(model.name, model.uri)
    ends = at_once(*(in_a_process(model, "rollback") for _ in range(2)))
    if ends[0][0] == ends[1][0] == 0:  # one was over before the other looked
        assert model.alias("champion") == "1"
        return
    assert [code for code, _ in ends] == [0, 3]
    assert "was changed by another command at the same time" in ends[1][1]
    assert model.alias("champion") == "2"


def test_a_crash_after_the_alias_has_moved_is_repaired(model: Model) -> None:
    model.add(answers(40))
    promote(model.name, model.uri)
    model.add(answers(5))
    died = in_a_process(model, "promote", **{KILL_AT_VARIABLE: "champion-moved"})
    assert at_once(died)[0][0] == -signal.SIGKILL
    assert model.alias("champion") == "2"
    assert any("turn" in key for key in model.tags())
    assert not json.loads(model.tags()["unfreeze.event.000002"])["done"]
    assert history(model.name, model.uri)[-1].done
    assert rollback(model.name, model.uri).champion.version == "1"
    assert [(e.kind, e.done) for e in history(model.name, model.uri)] == [
        ("promoted", True),
        ("promoted", True),
        ("rolled back", True),
    ]
    assert not any("turn" in key for key in model.tags())


def test_the_command_shows_the_comparison_and_sets_the_exit_code(
    model: Model, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    model.add(answers(40, scratch=90))
    assert model.run("promote", "--dry-run") == 0
    assert model.alias("champion") is None
    shown = capsys.readouterr().out
    for words in (
        "version 1, challenger",
        "86.7 % (mean of 3)",
        "scratch",
        "majority class",
        "+16.7",
        "1 MB",
        "5 ms",
    ):
        assert words in shown, shown
    assert "first: it is significantly better than scratch and majority class" in " ".join(shown.split())
    assert model.run("promote") == 0
    assert "version 1 is the champion" in capsys.readouterr().out
    model.add(answers(45))
    assert model.run("promote", "--dry-run") == 1
    assert model.run("promote") == 1
    shown = capsys.readouterr()
    assert "McNemar's exact p" in shown.out
    assert "stays challenger" in shown.err
    assert model.alias("champion") == "1"
    assert model.run("promote", "--force") == 0
    assert "version 2 is the champion after version 1, by force" in capsys.readouterr().out
    assert model.run("history") == 0
    shown_history = " ".join(capsys.readouterr().out.split())
    assert "1 → 2 photos ü #7" in shown_history
    assert "forced, against the gate" in shown_history


def test_a_version_is_promoted_by_its_number(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = model.add(answers(5))
    newest = model.add(answers(40))
    assert model.run("promote", "--version", chosen, "--dry-run") == 0
    assert f"version {chosen}, candidate" in capsys.readouterr().out
    assert model.alias("champion") is None
    assert model.run("promote", "--version", chosen) == 0
    assert f"version {chosen} is the champion" in capsys.readouterr().out
    assert (model.alias("champion"), model.alias("challenger")) == (chosen, newest)
    assert [(e.version, e.decision) for e in history(model.name, model.uri)] == [(chosen, "first")]
    assert model.run("promote", "--version", chosen) == 1
    assert f"version {chosen} of model {model.name!r} is the champion already" in capsys.readouterr().err
    # The gate is the same as for the challenger, and so is the way past it.
    assert model.run("promote", "--version", newest, "--dry-run") == 1
    assert model.run("promote", "--version", newest) == 1
    assert f"version {newest} of model {model.name!r} is not promoted: it is worse" in capsys.readouterr().err
    assert promote(model.name, model.uri, version=int(newest), force=True).forced
    assert rollback(model.name, model.uri).champion.version == chosen == model.alias("champion")


def test_a_version_is_promoted_by_its_number_without_any_alias(model: Model) -> None:
    number = model.add_unproposed(answers(5))
    with pytest.raises(TrackingError, match="has no version with the alias 'challenger'"):
        promote(model.name, model.uri)
    assert promote(model.name, model.uri, version=int(number)).champion.version == number
    assert (model.alias("champion"), model.alias("challenger")) == (number, None)


def test_a_point_of_a_front_is_promoted_by_its_version_without_a_question(model: Model) -> None:
    points = front(model, {4: 5, 9: 20, 2: 60})
    assert promote(model.name, model.uri, version=int(points[9])).champion.version == points[9]
    assert model.alias("challenger") == points[4]
    with pytest.raises(
        UsageError, match="expected either a trial or a version, received trial 9 and version 1"
    ):
        promote(model.name, model.uri, trial=9, version=1)
    assert model.run("promote", "--version", points[2], "--trial", "2") == 2


def test_a_version_that_is_no_number_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for number in ("", "x", "-1", "1.0", "²", "३", "v1", "models:/m/1", "1 2", "9999999999", "0x1", "latest"):
        assert main(["promote", "m", f"--version={number}"]) == 2
        assert f"--version: expected the number of a version, received '{number}'" in capsys.readouterr().err


def test_a_missing_version_is_refused_with_a_list_of_the_existing_ones(model: Model) -> None:
    model.add(answers(5))
    model.add(answers(5))
    model.client.create_registered_model(f"{model.name} other")
    for _ in range(3):
        model.client.create_model_version(f"{model.name} other", model.folder.as_uri())
    for number in (0, 3, 999_999_999):
        expected = rf"version: expected a version of model .* \(it has 1, 2\), received {number}"
        with pytest.raises(TrackingError, match=expected):
            promote(model.name, model.uri, version=number, force=True)
    assert (model.alias("champion"), model.tags()) == (None, {})


def test_a_version_of_a_missing_model_is_refused(model: Model) -> None:
    with pytest.raises(TrackingError, match=r"model: expected a registered model .*received 'nothing'"):
        promote("nothing", model.uri, version=1)
    with pytest.raises(TrackingError, match=r"\(it has none\), received 1"):
        promote(model.name, model.uri, version=1)


@pytest.mark.parametrize("status", ["FAILED_REGISTRATION", "PENDING_REGISTRATION"])
def test_a_version_that_is_not_ready_is_refused(
    model: Model, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = model.add_unproposed(answers(5))
    found = model.client.get_model_version(model.name, number)
    found._status, found._status_message = status, "the upload failed"
    monkeypatch.setattr(MlflowClient, "get_model_version", lambda *arguments: found)
    expected = rf"version 1 of model .* expected the status READY, received {status}: the upload failed"
    with pytest.raises(TrackingError, match=expected):
        promote(model.name, model.uri, version=1, force=True)
    assert model.tags() == {}


def test_a_version_that_is_deleted_after_the_comparison_changes_nothing(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = model.add_unproposed(answers(5))

    def judge_and_delete(*arguments: Any, **options: Any) -> Any:
        found = judge(*arguments, **options)
        model.client.delete_model_version(model.name, number)
        return found

    monkeypatch.setattr(promotion, "judge", judge_and_delete)
    with pytest.raises(TrackingError, match=r"\(it has none\), received 1"):
        promote(model.name, model.uri, version=1)
    assert (model.alias("champion"), model.tags()) == (None, {})


def test_a_version_that_is_promoted_while_another_command_sets_the_first_champion_is_refused(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (model.add_unproposed(answers(5)) for _ in range(2))

    def judge_late(*arguments: Any, **options: Any) -> Any:
        found = judge(*arguments, **options)
        model.client.set_registered_model_alias(model.name, "champion", second)
        return found

    monkeypatch.setattr(promotion, "judge", judge_late)
    with pytest.raises(TrackingError, match="version 2 is now champion"):
        promote(model.name, model.uri, version=int(first))
    assert model.alias("champion") == second


def test_promote_names_a_newer_version_that_was_not_proposed(model: Model) -> None:
    hint = r"The newest version, 2, was not proposed: it is poor\. --version 2 compares and promotes it"
    model.add(answers(5))
    promote(model.name, model.uri)
    model.add_unproposed(answers(60), **{NOT_PROPOSED_TAG: "it is poor"})
    with pytest.raises(TrackingError, match=rf"version 1 .* is the champion already\. {hint}"):
        promote(model.name, model.uri)
    model.client.delete_registered_model_alias(model.name, "challenger")
    with pytest.raises(TrackingError, match=rf"no version with the alias 'challenger': .*\. {hint}"):
        judge(model.name, model.uri)


def test_history_as_json(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    assert model.run("history") == 0
    assert "no version was promoted yet" in capsys.readouterr().out
    model.add(answers(5))
    model.run("promote")
    capsys.readouterr()
    assert model.run("history", "--json") == 0
    events: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert events[0]["version"] == "1"
    assert events[0]["numbers"]["majority_accuracy"] == pytest.approx(1 / 3, abs=1e-6)


@pytest.mark.parametrize("margin", ["5", "-1", "x", "100%", "1e-3", "nan"])
def test_an_invalid_margin_is_refused(model: Model, margin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert model.run("promote", f"--margin={margin}") == 2
    assert (
        f"--margin: expected an accuracy such as 1% or 0.01, below 100%, received '{margin}'"
        in capsys.readouterr().err
    )


def test_the_margin_reaches_the_gate(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    model.add(answers(40))
    promote(model.name, model.uri)
    model.add(answers(42), size=1000)
    assert model.run("promote", "--margin", "0.2%", "--dry-run") == 1
    assert model.run("promote", "--margin", "5%", "--dry-run") == 0
    assert model.run("promote", "--margin", "0.05") == 0
    assert history(model.name, model.uri)[-1].numbers["margin"] == 0.05


def test_a_footprint_is_kept_with_the_outcome_and_older_outcomes_have_none() -> None:
    accuracy = Interval(0.9, 0.8, 1.0)
    outcome = Outcome(
        0,
        {"learning_rate": 0.1},
        (1, 2),
        (0.9, 0.8),
        accuracy,
        (0.9, 0.8),
        ((1, 0), (0, 1)),
        footprint=footprint(),
    )
    kept = json.loads(json.dumps(outcome_to_json(outcome)))
    assert outcome_from_json(kept) == outcome
    for name in ("footprint", "answers_file"):
        del kept[name]
    assert outcome_from_json(kept).footprint is None


def front(model: Model, wrongs: dict[int, int], mark: str = "f1") -> dict[int, str]:
    """Register the points of one front; the first is the challenger. Returns versions by trial."""
    made = {}
    for trial, wrong in reversed(wrongs.items()):
        values = json.dumps({"val_accuracy": 1 - wrong / IMAGES, "parameters": 1000.0 * (100 - wrong)})
        tags = {"unfreeze.trial": str(trial), FRONT_TAG: mark, OBJECTIVES_TAG: values}
        made[trial] = model.add(answers(wrong), size=10_000 * (100 - wrong), **tags)
    return made


def test_promotion_asks_for_a_point_of_the_front(
    model: Model, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    points = front(model, {4: 5, 9: 20, 2: 60})
    assert model.alias("challenger") == points[4]
    with pytest.raises(
        AmbiguousChallenger, match=r"trial: expected one of the points .*\(4, 9, 2\), received none"
    ) as asked:
        promote(model.name, model.uri)
    assert [(p.trial, p.version.version) for p in asked.value.points] == [(n, points[n]) for n in (4, 9, 2)]
    monkeypatch.setenv("COLUMNS", "120")
    assert model.run("promote") == 2
    out, err = capsys.readouterr()
    assert "--trial: expected one of the points of the front" in err
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["trial", "version", "val_accuracy", "parameters"]
    assert rows[1][:4] == ["4", points[4], "0.9833", "95,000"]
    assert "best parameters" in out
    assert "knee" in out
    assert model.run("promote", "--trial", "5") == 2
    assert "received 5" in capsys.readouterr().err
    assert model.run("promote", "--trial", "x") == 2
    assert model.run("promote", "--trial", "9", "--dry-run") == 0
    assert f"version {points[9]}" in capsys.readouterr().out
    assert (model.alias("champion"), model.alias("challenger"), model.tags()) == (None, points[4], {})


def test_the_chosen_point_is_compared_and_promoted(model: Model) -> None:
    points = front(model, {4: 5, 9: 20, 2: 60})
    done = promote(model.name, model.uri, trial=9)
    assert (done.champion.version, done.judgement and done.judgement.decision) == (points[9], "first")
    assert (model.alias("champion"), model.alias("challenger")) == (points[9], points[9])
    assert [(e.trial, e.version) for e in history(model.name, model.uri)] == [(9, points[9])]
    with pytest.raises(TrackingError, match="is the champion already"):
        promote(model.name, model.uri, trial=9)
    with pytest.raises(PromotionRefused, match="worse"):
        promote(model.name, model.uri, trial=2)
    assert model.alias("challenger") == points[9]
    assert promote(model.name, model.uri, trial=4).champion.version == points[4]
    assert rollback(model.name, model.uri).champion.version == points[9]


def test_points_of_an_earlier_front_and_of_other_searches_are_not_offered(model: Model) -> None:
    front(model, {4: 5, 9: 20}, "before")
    model.add(
        answers(5), **{"unfreeze.search": "another", FRONT_TAG: "now", OBJECTIVES_TAG: '{"val_accuracy": 1}'}
    )
    now = front(model, {11: 4, 4: 5}, "now")
    model.client.set_model_version_tag(model.name, "1", OBJECTIVES_TAG, "changed by hand")
    contest = judge(model.name, model.uri, trial=4)
    assert contest.challenger.version == now[4]
    with pytest.raises(AmbiguousChallenger, match=r"\(11, 4\), received 9"):
        judge(model.name, model.uri, trial=9)


def test_without_a_front_there_is_no_choice(model: Model) -> None:
    only = front(model, {7: 5})
    with pytest.raises(AmbiguousChallenger, match=r"\(7\), received 3"):
        promote(model.name, model.uri, trial=3)
    assert promote(model.name, model.uri).champion.version == only[7]
    model.add(answers(1))
    with pytest.raises(
        UsageError, match="expected a model whose challenger is one of several points of a front"
    ):
        promote(model.name, model.uri, trial=7)


def test_at_a_terminal_the_question_is_repeated_until_the_answer_is_a_point(model: Model) -> None:
    points = front(model, {4: 5, 9: 20, 2: 60})
    mine, theirs = pty.openpty()
    command = [sys.executable, "-m", "search.cli", "promote", model.name, "--tracking-uri", model.uri]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(mine, b"five\n9\n")
    shown = b""
    with contextlib.suppress(OSError):  # as Linux says that the other side has hung up
        while part := os.read(mine, 4096):
            shown += part
    os.close(mine)
    assert process.wait(120) == 0, shown.decode()
    assert "which point, by its trial? [4]" in shown.decode()
    assert "expected one of 4, 9, 2, received 'five'" in shown.decode()
    assert model.alias("champion") == points[9]
