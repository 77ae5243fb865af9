"""``unfreeze status``: print the state of a search."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from search.config.argument_parser import Parser, add_storage_options, add_verbose_option
from search.records.end_reasons import PROBE_VERDICTS
from search.records.formatting import (
    ending_phrase,
    format_objective,
    format_percent,
    format_points,
    old_task_phrase,
    parameter_phrases,
    plural,
    reason_phrase,
    search_subject,
    state_counts,
    values_phrase,
)
from search.records.record import SearchRecord, TrialRecord
from search.records.units import format_duration
from search.views.remaining_time import remaining_seconds

_LABEL_WIDTH = 10

_MAX_POINTS = 12
"""Of the points of the Pareto front, this many are shown."""


def parser() -> Parser:
    """Return the parser: the search, and where its files are."""
    made = Parser("status", "Print how many trials are in which state, the best one so far, and the cost.")
    made.add_argument("name", metavar="NAME", help="Name of the search.")
    made.add_argument("--json", action="store_true", help="Print one JSON object.")
    add_storage_options(made, tracking=False, ledger=True)
    add_verbose_option(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Print the state that the ledger holds; this works while the search runs."""
    from search.ledger.reader import read_record

    record = read_record(options.name, options.storage, options.ledger)
    if options.json:
        from search.records.results import record_json

        print(json.dumps(record_json(record), ensure_ascii=False, allow_nan=False))
        return 0
    Console().print(status_page(record, tracebacks=options.verbose), highlight=False, soft_wrap=True)
    return 0


def status_page(record: SearchRecord, tracebacks: bool = False) -> Text:
    """Return the page: counts, best trial, cost and failures, with tracebacks in full if ``tracebacks``."""
    lines = [
        Text.assemble((record.name, "bold"), "  ", (search_subject(record), "dim")),
        _line("trials", f"{_counts(record)} of {record.requested:,}"),
        _line("best", _best(record)),
        *_front(record),
        _line("cost", _cost(record)),
    ]
    if record.config.get("address") and (running := _running(record)):
        lines.append(_line("running", running))
    if record.outcome is not None:
        lines.append(_line("test", _test(record)))
        if record.outcome.old_task is not None:
            lines.append(_line("old task", old_task_phrase(record.outcome.old_task)))
    if words := _reasons(record):
        lines.append(_line("pruned", words))
    if words := _retried(record):
        lines.append(_line("retried", words))
    for trials in _failure_groups(record):
        lines.append(_line("failed", _failure(trials), style="red"))
        if tracebacks and trials[0].error:
            lines.append(Text(trials[0].error.rstrip(), style="dim"))
    return Text("\n").join(lines)


def _counts(record: SearchRecord) -> str:
    return (
        ", ".join(f"{count} {words}" for words, count in state_counts(record) if words != "to come") or "none"
    )


def _best(record: SearchRecord) -> str:
    best = record.winner
    if best is None:
        return "no trial has a result yet"
    params = " ".join(parameter_phrases(best.params, "="))
    return f"{record.metric} {format_objective(best.value)} (trial {best.number}): {params}"


def _front(record: SearchRecord) -> list[Text]:
    """Return a line for each point of the Pareto front, up to a number that fits on a screen."""
    shown = [f"{values_phrase(t.objectives)} (trial {t.number}){_version(record, t)}" for t in record.front]
    more = [f"and {len(shown) - _MAX_POINTS} more"] if len(shown) > _MAX_POINTS else []
    if record.objectives and not shown:
        shown = ["no trial is complete yet"]
    return [_line("" if place else "front", words) for place, words in enumerate(shown[:_MAX_POINTS] + more)]


def _version(record: SearchRecord, trial: TrialRecord) -> str:
    outcome = record.outcome_of(trial.number)
    return f", version {outcome.model_version}" if outcome and outcome.model_version else ""


def _cost(record: SearchRecord) -> str:
    training = sum(t.seconds for t in record.trials if math.isfinite(t.seconds))
    left = remaining_seconds(record, record.elapsed)
    words = f"{format_duration(record.elapsed)}, of it {format_duration(training)} in epochs of training"
    return words + (f"; about {format_duration(left)} left" if left and record.count("running") else "")


def _test(record: SearchRecord) -> str:
    outcome = record.outcome
    if outcome is None:
        return ""
    words = f"accuracy {format_percent(outcome.headline_accuracy.estimate)}"
    if outcome.probe_gain is not None:
        words += f", over the frozen probe {format_points(outcome.probe_gain.estimate)} points"
    elif outcome.probe_won:
        words += f", {PROBE_VERDICTS['enough'].short}"
    if outcome.gain is not None and outcome.verdict is not None:
        words += f", transfer gain {format_points(outcome.gain.estimate)} points: {outcome.verdict}"
    return words


def _reasons(record: SearchRecord) -> str:
    """Return why trials were pruned, or nothing if the scheduler pruned all of them."""
    reasons = Counter(t.reason for t in record.trials if t.state == "pruned")
    if set(reasons) <= {"scheduler"}:
        return ""
    words = {"scheduler": "by the scheduler"}
    return ", ".join(f"{n} {words.get(r or '', reason_phrase(r))}" for r, n in reasons.most_common())


def _retried(record: SearchRecord) -> str:
    """Return which trials were retried after a crash or hang, and which use smaller batches."""
    smaller = [f"trial {t.number} with batches of {t.batch_size}" for t in record.trials if t.batch_size]
    died = [f"trial {t.number} {plural(t.retries, 'time')}" for t in record.trials if t.retries]
    return _some(died + smaller)


def _running(record: SearchRecord) -> str:
    """Return which trials run on which node."""
    where: dict[str, list[int]] = defaultdict(list)
    for trial in record.trials:
        if trial.state == "running":
            where[trial.node or "a node not yet known"].append(trial.number)
    return "; ".join(f"{', '.join(map(str, numbers))} on {node}" for node, numbers in sorted(where.items()))


def _failure_groups(record: SearchRecord) -> list[list[TrialRecord]]:
    """Return the failed trials, grouped by how they ended and by the last line of their error."""
    groups: dict[tuple[str, str], list[TrialRecord]] = defaultdict(list)
    for trial in record.trials:
        if trial.state == "failed":
            groups[ending_phrase(trial), _last_line(trial)].append(trial)
    return list(groups.values())


def _failure(trials: list[TrialRecord]) -> str:
    numbers = _some([str(t.number) for t in trials])
    words = _last_line(trials[0])
    return f"{plural(len(trials), 'trial')} ({numbers}): {ending_phrase(trials[0])}" + (
        f": {words}" if words else ""
    )


def _some(words: list[str], max_words: int = 8) -> str:
    return ", ".join(words[:max_words]) + (", …" if len(words) > max_words else "")


def _last_line(trial: TrialRecord) -> str:
    return (trial.error or "").strip().rpartition("\n")[2]


def _line(label: str, words: str, style: str = "") -> Text:
    return Text.assemble((f"{label:<{_LABEL_WIDTH}}", "bold"), (words, style))
