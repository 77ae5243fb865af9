"""Prints the result of a finished search: the winner, its accuracy, its cost, and commands to run next."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console
from rich.text import Text

from search.config.choices import BASELINE_SOURCES, baseline_phrase
from search.records.cost import cost_phrases, search_cost
from search.records.end_reasons import PROBE_VERDICTS, STOP_REASONS, VERDICTS
from search.records.formatting import (
    ending_phrase,
    format_objective,
    format_percent,
    format_points,
    format_value,
    old_task_phrase,
    optimism_phrase,
    over_probe_phrase,
    plural,
    registered_phrase,
    state_counts,
    values_phrase,
)
from search.records.record import Interval, Outcome, SearchRecord
from search.records.stats.intervals import probe_verdict
from search.records.units import format_duration, format_size

_LABEL = 16
"""Width of the column of labels."""

_POINTS = 12
"""Most points that are listed if no point of the front was confirmed."""

_TONES = {"good": "bold green", "plain": "bold yellow", "bad": "bold red"}
"""Styles of a verdict by its tone."""


def summary_text(record: SearchRecord, report: Path | None, model_state: str = "") -> Text:
    """Return the summary as a few sections of short lines. Paths and commands are never wrapped.

    Args:
        report: path of the HTML report, if there is one.
        model_state: the aliases of the registered version, or why it has none, as MLflow has them now.
    """
    sections = [_headline(record), _outcome(record), _configuration(record), _front(record)]
    if any(trial.cost for trial in record.trials):
        sections.append(_cost(record))
    sections.append(_places(record, report, model_state))
    if record.edges:
        sections.append(_edges(record.edges))
    sections.append(_commands(next_commands(record)))
    return Text("\n\n").join(section for section in sections if section)


def print_summary(record: SearchRecord, report: Path | None, console: Console, model_state: str = "") -> None:
    """Print :func:`summary_text`. The terminal wraps long lines itself, so that a path can be copied as one word."""
    console.print(summary_text(record, report, model_state), highlight=False, soft_wrap=True)


def next_commands(record: SearchRecord) -> list[tuple[str, str]]:
    """Commands to run next, quoted for a shell, each with its purpose."""
    store = store_options(record)
    commands = [(f"unfreeze ui{store}", "compare the runs")]
    outcome = record.outcome
    if outcome is not None and outcome.model_name is not None:
        # The number names this search's model, whatever the alias ``challenger`` points to by then.
        which = f" --version {outcome.model_version}" if outcome.model_version else ""
        promote = f"unfreeze promote {shlex.quote(outcome.model_name)}{which}{store}"
        purpose = "make it, or another version, champion" if record.alternatives else "make it champion"
        commands.insert(0, (promote, purpose))
    return commands


def store_options(record: SearchRecord) -> str:
    """Return the options that tell another command where this search's MLflow store is; empty for the default."""
    options = ""
    for key, default in (("storage", "./unfreeze-runs"), ("tracking_uri", None)):
        value = record.config.get(key)
        if isinstance(value, str) and value != default:
            options += f" --{key.replace('_', '-')} {shlex.quote(value)}"
    return options


def _headline(record: SearchRecord) -> Text:
    counts = ", ".join(f"{count} {words}" for words, count in state_counts(record) if words != "to come")
    line = Text.assemble((record.name, "bold"), f": {plural(len(record.trials), 'trial')} in ")
    line.append(format_duration(record.elapsed), style="bold")
    if counts:
        line.append(f" ({counts})", style="dim")
    if record.stopped:
        known = STOP_REASONS.get(record.stopped)
        line.append(f"\n{known.line if known else record.stopped}", style="yellow")
    return line


def _outcome(record: SearchRecord) -> Text:
    outcome = record.outcome
    if outcome is None:
        return Text()
    rows = [_row("test accuracy", _accuracy(record, outcome))]
    if outcome.probe is not None:
        rows.append(_row("over the probe", _probe(outcome)))
    rows.append(_row("transfer gain", _gain(outcome)))
    if outcome.old_task is not None:
        rows.append(_row("old task", Text(old_task_phrase(outcome.old_task))))
    return Text("\n").join(rows)


def _accuracy(record: SearchRecord, outcome: Outcome) -> Text:
    images, shown = record.task.counts.get("test"), outcome.headline_accuracy
    text = Text.assemble((format_percent(shown.estimate), "bold green"))
    seeds = len(outcome.seed_test_accuracies)
    mean = (
        f", mean of {plural(seeds, 'seed')}" if outcome.mean_test_accuracy is not None and seeds > 1 else ""
    )
    text.append(f"   95 % interval {_between(shown)}{mean}", style="dim")
    text.append(f", {plural(images, 'image')}" if images else "", style="dim")
    text.append(f"\nalways the most frequent class: {format_percent(outcome.majority_accuracy)}", style="dim")
    registered = registered_phrase(outcome)
    return text.append(f"\n{registered}", style="dim") if registered else text


def _probe(outcome: Outcome) -> Text:
    """What the winner gains over the frozen probe."""
    word, gain = probe_verdict(outcome), outcome.probe_gain
    if word is None or outcome.probe is None:
        return Text()
    verdict = PROBE_VERDICTS[word]
    style = _TONES[verdict.tone]
    text = Text()
    if gain is not None:
        text.append(f"{format_points(gain.estimate)} points", style=style)
        text.append(
            f"   95 % interval {format_points(gain.low)} to {format_points(gain.high)}\n", style="dim"
        )
    text.append(verdict.line, style=style)
    if gain is not None:
        mean = sum(outcome.probe.test_accuracies) / len(outcome.probe.test_accuracies)
        text.append(f" (the probe: {format_percent(mean)})", style="dim")
    elif found := over_probe_phrase(outcome.selection):
        text.append(f"\n{found}", style="dim")
    return text


def _gain(outcome: Outcome) -> Text:
    gain = outcome.gain
    baseline = outcome.main_baseline
    if gain is None or outcome.verdict is None or baseline is None:
        return Text("not measured: no baseline was trained to compare with")
    verdict = VERDICTS[outcome.verdict]
    words, style = verdict.line.format(baseline_phrase(baseline.method)), _TONES[verdict.tone]
    text = Text.assemble((f"{format_points(gain.estimate)} points", style))
    text.append(f"   95 % interval {format_points(gain.low)} to {format_points(gain.high)}", style="dim")
    text.append(f"\n{words}", style=style)
    against = f" (against {plural(baseline.trials, 'trial')} from {BASELINE_SOURCES[baseline.method]})"
    text.append(against, style="dim")
    for other in outcome.baselines[1:]:
        mean = sum(other.test_accuracies) / len(other.test_accuracies)
        text.append(f"\nfrom {BASELINE_SOURCES[other.method]}: {format_percent(mean)}", style="dim")
    return text


def _configuration(record: SearchRecord) -> Text:
    best, selection = record.winner, record.outcome.selection if record.outcome else None
    if best is None:
        return _row("best", Text("no trial has a result"))
    text = Text.assemble(f"trial {best.number}, {record.metric} ", (format_objective(best.value), "bold"))
    if best.state != "complete":
        text.append(f", {ending_phrase(best)} after {plural(len(best.epochs), 'epoch')}", style="dim")
    if selection is not None:
        numbers = ", ".join(str(finalist.trial) for finalist in selection.finalists)
        text.append(f"\nchosen among trials {numbers}: " if len(selection.finalists) > 1 else "\n", "dim")
        mean = format_objective(selection.winner.mean.estimate)
        seeds = plural(len(selection.winner.values), "new seed")
        text.append(f"{mean} over {seeds}; {optimism_phrase(selection)}", style="dim")
    width = max((len(name) for name in best.params), default=0)
    for name, value in best.params.items():
        text.append(f"\n{name:<{width}}  ").append(format_value(value), style="bold")
    return _row("best", text)


def _front(record: SearchRecord) -> Text:
    """With several objectives, the number of points of the front and the confirmed ones."""
    if not record.front:
        return Text()
    confirmed = [t for t in record.front if record.outcome_of(t.number)] or list(record.front[:_POINTS])
    text = Text(
        f"{plural(len(record.front), 'point')}{', of which:' if len(confirmed) < len(record.front) else ''}"
    )
    for trial in confirmed:
        outcome = record.outcome_of(trial.number)
        version = f", version {outcome.model_version}" if outcome and outcome.model_version else ""
        text.append(f"\n{values_phrase(trial.objectives)}", style="bold")
        text.append(f"   trial {trial.number}{version}", style="dim")
    return _row("front", text)


def _places(record: SearchRecord, report: Path | None, model_state: str) -> Text:
    rows, outcome = [], record.outcome
    if outcome is not None and outcome.model_name is not None:
        version = f" version {outcome.model_version}" if outcome.model_version else ""
        model = Text(outcome.model_name + version)
        if model_state:
            # Aliases fit into the line; the reason why there is none gets its own.
            known = model_state.startswith("alias")
            model.append(f", {model_state}" if known else f"\n{model_state}", style="" if known else "yellow")
        rows.append(_row("model", model.append(_costs(outcome), style="dim")))
    if report is not None:
        rows.append(_row("report", Text(str(report))))
    return Text("\n").join(rows)


def _costs(outcome: Outcome) -> str:
    """Return a line about file size and latency of the model; empty if they were not measured."""
    footprint = outcome.footprint
    if footprint is None:
        return ""
    latency = f"{footprint.latency.median:.3g} ms for an image"
    return f"\n{format_size(footprint.file_bytes)}, {latency} ({footprint.processor})"


def _cost(record: SearchRecord) -> Text:
    return _row("cost", Text("\n".join(cost_phrases(search_cost(record))), "dim"))


def _edges(edges: tuple[str, ...]) -> Text:
    names = " and ".join(edges)
    lies = f"{names} lies on an edge" if len(edges) == 1 else f"{names} lie on edges"
    return _row(
        "note",
        Text(f"{lies} of the search space:\na wider range may do better (--space FILE.yaml)", "yellow"),
    )


def _commands(commands: list[tuple[str, str]]) -> Text:
    width = max(len(command) for command, _ in commands)
    lines = [Text.assemble((f"{c:<{width}}", "cyan"), (f"  # {words}", "dim")) for c, words in commands]
    return _row("next", Text("\n").join(lines))


def _row(label: str, content: Text) -> Text:
    """``content`` to the right of ``label``, with its lines aligned."""
    lines = content.split("\n")
    head = Text.assemble((f"{label:<{_LABEL}}", "bold"), lines[0])
    return Text("\n").join([head, *(Text(" " * _LABEL).append(line) for line in lines[1:])])


def _between(interval: Interval) -> str:
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %"
