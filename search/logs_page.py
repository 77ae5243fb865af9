"""What ``unfreeze logs`` prints."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from rich.text import Text

from search.records.formatting import configuration, ending, number, objective, plural
from search.records.record import EpochRecord, SearchRecord, TrialRecord
from search.records.units import format_duration
from search.trial_story import Story

_LABEL = 10


def logs_page(record: SearchRecord, story: Story) -> Text:
    """A trial's life, epochs, error and the output of its engines."""
    trial = story.trial
    lines = [Text(f"{record.name}, trial {trial.number}", style="bold"), *_life(trial, record)]
    if story.happenings:
        lines += [Text(), Text("what happened", style="bold")]
        lines += [
            Text.assemble((f"{_clock(h.moment)}  ", "dim"), (f"{h.source:<20}  ", "cyan"), h.words)
            for h in story.happenings
        ]
    if trial.epochs:
        lines += [Text(), Text("epoch  val_accuracy  val_loss  train_loss  seconds", style="bold")]
        lines += [Text(_epoch(e)) for e in trial.epochs]
    if trial.error:
        lines += [Text(), Text("error", style="bold red"), Text(trial.error.rstrip())]
    for engine, printed in story.output:
        lines += [
            Text(),
            Text(f"printed by the engine {engine} meanwhile", style="bold"),
            *map(Text, printed),
        ]
    return Text("\n").join(lines)


def _life(trial: TrialRecord, record: SearchRecord) -> Iterator[Text]:
    yield _line(
        "state", ending(trial) + (f", {record.metric} {objective(trial.value)}" if trial.epochs else "")
    )
    yield _line("with", " ".join(configuration(trial.params, "=")) or "no parameters yet")
    yield _line("method", f"{trial.method}, seed {trial.seed}")
    if trial.node:
        yield _line("node", trial.node)
    if trial.started is not None:
        until = f", ended {_clock(trial.ended)}" if trial.ended else ""
        yield _line("started", f"{_clock(trial.started)}{until}")
    epochs = f"{plural(len(trial.epochs), 'epoch')} in {format_duration(trial.seconds)}"
    yield _line("trained", epochs)


def _epoch(epoch: EpochRecord) -> str:
    return (
        f"{epoch.epoch:>5}  {number(epoch.val_accuracy):>12}  {number(epoch.val_loss):>8}  "
        f"{number(epoch.train_loss):>10}  {epoch.epoch_seconds:>7.2f}"
    )


def _clock(moment: datetime) -> str:
    """In this machine's time."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def _line(label: str, words: str) -> Text:
    return Text.assemble((f"{label:<{_LABEL}}", "bold"), words)
