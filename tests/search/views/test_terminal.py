"""The panel on a terminal, progress as plain lines, and the choice between the views."""

from __future__ import annotations

import io
import logging
import math
import time
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from search.records.record import BackboneSummary, SearchRecord, State, TaskSummary, TrialRecord
from search.views.plain import PlainView
from search.views.remaining_time import remaining_seconds
from search.views.terminal import PanelState, Stage, TerminalView, panel
from search.views.trial_table import sparkline
from search.views.view import GuardedView, QuietView, make_view
from trainables.epoch_metrics import EpochMetrics

EPOCHS = 10


def trial(
    number: int, state: State = "complete", value: float = 0.9, epochs: int = 4, reason: str | None = None
) -> TrialRecord:
    curve = tuple(EpochMetrics(e, value * e / epochs, 1 / e, 1 / e, 0.5) for e in range(1, epochs + 1))
    params = {
        "unfreeze_depth": number % 3,
        "learning_rate": 0.00123,
        "head_units": 64,
        "augmentation_strength": 0.25,
    }
    ended = datetime(2026, 1, 1) + timedelta(seconds=number)
    best = max((e.val_accuracy for e in curve), default=None)
    return TrialRecord(number, state, "finetune", params, best, curve, reason, ended=ended)


def record(*trials: TrialRecord, requested: int = 24, elapsed: float = 60.0) -> SearchRecord:
    return SearchRecord(
        name="größe 字",
        metric="val_accuracy",
        direction="maximize",
        task=TaskSummary("t", "d", ("a", "b"), {"train": 10, "validation": 5, "test": 1485}, (8, 8), "here"),
        backbone=BackboneSummary("print", "default", "d", (32, 32), 287_344, ("one", "two")),
        config={"epochs": EPOCHS, "method": "finetune", "time_budget": None},
        trials=trials,
        requested=requested,
        elapsed=elapsed,
    )


def drawn(
    shown: SearchRecord | None, width: int = 80, height: int = 24, stage: Stage | None = None
) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(panel(PanelState(shown, None, stage, 75.0, 0.5), console))
    return captured.get().splitlines()


MANY = (
    *(trial(n, "pruned", 0.5 + n / 100, 3, "scheduler") for n in range(20)),
    trial(20, "complete", 0.987),
    trial(21, "failed", 0.3, 2, "out_of_memory"),
    trial(22, "running", 0.4, 5),
    trial(23, "running", 0.4, 0),
)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 12), (20, 6), (10, 2), (300, 90)])
@pytest.mark.parametrize("shown", [None, record(), record(*MANY), record(*MANY * 40)])
def test_the_panel_fits_the_terminal(width: int, height: int, shown: SearchRecord | None) -> None:
    lines = drawn(shown, width, height, Stage("preparing data", 3, 10))
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)


def test_the_panel_shows_progress_counts_and_the_best_configuration() -> None:
    text = "\n".join(drawn(record(*MANY)))
    assert "größe 字" in text
    assert "22 of 24 trials" in text
    assert "2 running · 1 complete · 20 pruned · 1 failed" in text
    assert "val_accuracy 0.9870   trial 20" in text
    assert "learning_rate 0.00123" in text
    assert "1m 15s" in text
    assert "no memory" in text
    assert "5/10" in text


def test_running_trials_come_first_and_the_best_is_always_shown() -> None:
    best = trial(0, "complete", 0.999)
    others = [trial(n, "complete", 0.5) for n in range(1, 60)]
    running = [trial(n, "running", 0.4) for n in range(60, 64)]
    rows = [line.split() for line in drawn(record(best, *others, *running, requested=100))]
    numbers = [row[0] if row[0] != "*" else row[1] for row in rows if len(row) > 2 and row[-1] == "0.25"]
    assert numbers[:4] == ["60", "61", "62", "63"]
    assert numbers[4] == "59"
    assert numbers[-1] == "0"


def test_parameters_that_do_not_fit_are_left_out() -> None:
    assert "augment" in "\n".join(drawn(record(*MANY), 80))
    narrow = "\n".join(drawn(record(*MANY), 60))
    assert "augment " not in narrow
    assert "curve" in narrow


def test_nan_in_a_curve_is_visible_and_harmless() -> None:
    bad = trial(0, "pruned", 0.5, 3, "diverged")
    bad = replace(bad, epochs=(*bad.epochs, EpochMetrics(4, math.nan, math.nan, math.nan, 0.1)), value=None)
    text = "\n".join(drawn(record(bad, trial(1))))
    assert "diverged" in text
    assert "!" in text


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([0.0, 0.5, 1.0], "▁▅█"),
        ([], ""),
        ([1.0, math.nan], "█!"),
        ([-5.0, 9.0], "▁█"),
        ([0.0] * 4 + [1.0] * 4, "▁▁██"),
    ],
)
def test_sparkline_draws_values_between_low_and_high(values: list[float], line: str) -> None:
    assert sparkline(values, 0.0, 1.0, 4) == line


@example([1.0], math.nan, 1.0, 3)
@example([1e308], -1e308, 1.7e308, 3)
@example([2.3e307], -1.0, 0.0, 1)
@example([1.0], -math.inf, math.inf, 3)
@given(st.lists(st.floats(), max_size=40), st.floats(), st.floats(), st.integers(1, 12))
def test_sparkline_never_fails_and_never_overflows(
    values: list[float], low: float, high: float, width: int
) -> None:
    assert len(sparkline(values, low, high, width)) == min(len(values), width)


def test_remaining_time_needs_finished_work_and_respects_the_budget() -> None:
    assert remaining_seconds(record(), 10) is None
    assert remaining_seconds(record(trial(0)), 10) is None
    four = record(*(trial(n) for n in range(4)), requested=24)
    assert remaining_seconds(four, 60) == pytest.approx(300)
    half = record(*(trial(n) for n in range(4)), trial(4, "running", epochs=5), trial(5, "running", epochs=5))
    assert remaining_seconds(half, 60) == pytest.approx(60 / 5 * 19)
    assert remaining_seconds(
        replace(four, config={**four.config, "time_budget": 100.0}), 60
    ) == pytest.approx(40)


def lines_of(view_calls: list[SearchRecord]) -> list[str]:
    stream = io.StringIO()
    view = PlainView(stream)
    for each in view_calls:
        view.update(each)
    view.close()
    return stream.getvalue().splitlines()


def test_plain_lines_show_each_finished_trial_once() -> None:
    running = trial(1, "running")
    calls = [
        record(),
        record(trial(0), running),
        record(trial(0), running),
        record(trial(0), trial(1, value=0.95)),
    ]
    lines = lines_of(calls)
    assert len(lines) == 3
    assert "24 trials" in lines[0]
    assert lines[1].startswith("trial   0  complete    val_accuracy 0.9000")
    assert "learning_rate=0.00123" in lines[1]
    assert "best 0.9500 (trial 1)" in lines[2]


def test_plain_lines_of_a_resumed_search_do_not_repeat_finished_trials() -> None:
    lines = lines_of([record(*MANY[:5]), record(*MANY[:5], trial(20))])
    assert "resuming after 5 finished trials" in lines[1]
    assert sum(line.startswith("trial") for line in lines) == 1


def test_plain_lines_about_a_stage_are_few() -> None:
    stream = io.StringIO()
    view = PlainView(stream)
    for done in range(1001):
        view.stage("preparing data", done, 1000)
    view.stage("preparing data", 1000, 1000)
    view.stage("training the winner", 0, 3)
    assert stream.getvalue().splitlines() == [
        "preparing data",
        "preparing data: 1,000 of 1,000",
        "training the winner",
    ]


def terminal(**options: object) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=True, width=80, height=24, **options), stream  # type: ignore[arg-type]


def test_many_updates_make_few_frames() -> None:
    console, stream = terminal()
    view = TerminalView(console)
    began = time.monotonic()
    for n in range(3000):
        view.update(record(*MANY, elapsed=float(n)))
    view.close()
    spent = time.monotonic() - began
    assert stream.getvalue().count("of 24 trials") <= 3 + 5 * spent


def test_a_terminal_view_restores_the_terminal() -> None:
    console, stream = terminal()
    view = TerminalView(console)
    view.stage("preparing data", 1, 10)
    view.event("3 images were left out")
    view.close()
    view.close()
    view.update(record())
    text = stream.getvalue()
    assert "3 images were left out" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def frame(view: TerminalView) -> str:
    console, stream = terminal(color_system=None)
    console.print(view.draw())
    return stream.getvalue()


def test_the_result_of_the_search_stays_visible_while_its_baseline_runs() -> None:
    view = TerminalView(terminal()[0])
    view.update(record(trial(7, value=0.987)))
    view.update(replace(record(trial(0, value=0.5)), name="baseline"))
    text = frame(view)
    view.close()
    assert "val_accuracy 0.5000" in text
    assert "größe 字 had 0.9870 (trial 7)" in text


def test_a_stage_without_a_total_ends_with_the_next_update() -> None:
    view = TerminalView(terminal()[0])
    view.stage("starting", 0, 0)
    first = frame(view)
    view.update(record())
    second = frame(view)
    view.close()
    assert "starting" in first
    assert "starting" not in second


def test_the_variable_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    def codes() -> bool:
        console, _ = terminal()
        with console.capture() as captured:
            console.print(panel(PanelState(record(*MANY), None, None, 1.0, 0.0), console))
        return any(f"\x1b[{n}m" in captured.get() for n in (31, 32, 36))

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert codes()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not codes()


class Broken(QuietView):
    calls = 0

    def update(self, shown: SearchRecord) -> None:
        self.calls += 1
        raise ZeroDivisionError


def test_a_broken_view_is_reported_once_and_never_stops_the_search(caplog: pytest.LogCaptureFixture) -> None:
    broken = Broken()
    view = GuardedView(broken)
    with caplog.at_level(logging.ERROR):
        view.update(record())
        view.update(record())
        view.close()
    assert broken.calls == 1
    assert [r.message for r in caplog.records] == [
        "the progress display failed and is off; the search goes on"
    ]


def test_the_view_is_chosen_by_the_kind_of_output() -> None:
    console, stream = terminal()
    live = make_view(console=console)
    live.stage("x", 0, 0)
    live.close()
    assert "\x1b[?25l" in stream.getvalue()
    file = io.StringIO()
    make_view(console=Console(file=file)).stage("x", 0, 0)
    assert file.getvalue() == "x\n"
    verbose, stream = terminal()
    make_view(console=verbose, verbose=True).stage("x", 0, 0)
    assert stream.getvalue() == "x\n"
    assert isinstance(make_view(quiet=True), QuietView)


def with_objectives(count: int) -> SearchRecord:
    """Trials of which all but the pruned ones are points of the front, and one that has just started."""
    names = ("val_accuracy", "latency_ms", "parameters")
    done = [
        replace(t, objectives=dict(zip(names, (t.value, 3.0 + t.number, 1e5 + t.number), strict=True)))
        for t in (trial(n, value=0.5 + n / 50, state="complete" if n % 4 else "pruned") for n in range(count))
    ]
    begun = replace(trial(count, "running", 0.4), objectives={"latency_ms": 2.0, "parameters": 123_456.0})
    return replace(record(*done, begun), objectives=names)


@pytest.mark.parametrize("width", [40, 60, 100, 160])
@pytest.mark.parametrize("height", [12, 16, 24, 60])
def test_the_front_is_shown_as_far_as_it_fits_the_screen(width: int, height: int) -> None:
    lines = drawn(with_objectives(16), width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    shown = [line for line in lines if line.startswith("front  val_accuracy 0.8000, 18 ms")]
    assert len(shown) == 1 or height < 16
    if width >= 100 and height >= 24:
        assert any(line.strip() == f"and {12 - min(5, height // 5)} more" for line in lines)
        assert {"ms", "params"} <= set(next(line for line in lines if "state" in line).split())


def test_plain_lines_show_all_objectives_and_the_size_of_the_front() -> None:
    stream = io.StringIO()
    view = PlainView(stream)
    shown = with_objectives(6)
    view.update(replace(shown, trials=()))
    view.update(shown)
    line = next(line for line in stream.getvalue().splitlines() if line.startswith("trial   5"))
    assert "val_accuracy 0.6000, 8 ms, 100,005 parameters" in line
    assert "best 0.6000 (trial 5, front of 4)" in line
