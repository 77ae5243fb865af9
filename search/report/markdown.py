"""Write the report as a few lines of Markdown, for a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from search.records.formatting import plural, without_secrets
from search.records.record import SearchRecord
from search.report.analysis.ranking import ranked, winner, without_non_finite_values
from search.report.analysis.wording import (
    format_metric,
    format_number,
    format_parameter,
    label,
)
from search.report.candidates import HEADINGS, candidates
from search.report.charts.calibration import error_phrase
from search.report.charts.parameters import shares
from search.report.headline import Tile, headline
from search.report.next_steps import next_steps
from search.report.notices import notices

MAX_TRIALS = 8
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")
_CONTROL = re.compile(r"\s+")


def markdown(record: SearchRecord) -> str:
    """Return the verdict, the best trials, the important parameters and the next steps as GitHub-flavoured Markdown."""
    known = without_non_finite_values(record)
    sections = [_verdict(known), _candidates(known), _trials(known), _importance(known), _next(known)]
    lines = "\n\n".join("\n".join(section) for section in map(list, sections) if section)
    return lines.encode("utf-8", errors="replace").decode("utf-8") + "\n"


def _verdict(record: SearchRecord) -> Iterator[str]:
    first = headline(record)
    yield f"## {_text(first.kicker)}"
    yield ""
    yield f"**{_text(', '.join([*first.phrases, *(m.lower() for m in first.more)]))}**"
    yield ""
    yield from (_tile(tile) for tile in first.tiles)
    if record.outcome is not None and record.outcome.calibration is not None:
        yield f"- {_text(error_phrase(record.outcome.calibration))}"
    found = notices(record)
    if found:
        yield ""
        yield from (f"> - {'**Warning:** ' if n.kind == 'warning' else ''}{_text(n.text)}" for n in found)


def _tile(tile: Tile) -> str:
    figure = f"{tile.figure} {tile.unit}".strip()
    verdict = f" ({tile.verdict.lower()})" if tile.verdict else ""
    return _text(f"- {tile.title}: ") + f"**{_text(figure)}**" + _text(f"{verdict}. {tile.detail}").rstrip()


def _candidates(record: SearchRecord) -> Iterator[str]:
    known = candidates(record)
    if known is None:
        return
    yield "### How the winner was chosen"
    yield ""
    yield _text(known.lead)
    yield ""
    yield _row(HEADINGS)
    yield _rule(["--:", ":--", *["--:"] * (len(HEADINGS) - 2)])
    for place, row in enumerate(known.rows):
        star = " ★" if place == known.chosen else ""
        yield _row([f"{row[0]}{star}", *row[1:]])


def _trials(record: SearchRecord) -> Iterator[str]:
    best = ranked(record)[:MAX_TRIALS]
    if not best:
        return
    won = winner(record)
    names = list(dict.fromkeys(name for t in best for name in t.params))
    left = len(record.trials) - len(best)
    yield f"### The best of {plural(len(record.trials), 'trial')}" if left else "### Trials"
    yield ""
    yield _row(["trial", label(record.metric), *map(label, names), "epochs", "state"])
    yield _rule(["--:", "--:", *["--:"] * len(names), "--:", ":--"])
    for t in best:
        values = [format_parameter(name, t.params[name]) if name in t.params else "–" for name in names]
        star = " ★" if won is not None and won.number == t.number else ""
        value = format_metric(record.metric, t.value)
        yield _row([f"{t.number}{star}", value, *values, str(len(t.epochs)), t.state])


def _importance(record: SearchRecord) -> Iterator[str]:
    known = shares(record)
    if not known:
        return
    yield "### What mattered"
    yield ""
    yield _row(["parameter", "share of the differences", "95 % interval"])
    yield _rule([":--", "--:", "--:"])
    for share in known:
        interval = "–" if share.low is None or share.high is None else _percents(share.low, share.high)
        yield _row([label(share.name), f"{100 * share.value:.0f} %", interval])


def _percents(low: float, high: float) -> str:
    return f"{100 * low:.0f} to {100 * high:.0f} %"


def _next(record: SearchRecord) -> Iterator[str]:
    steps = next_steps(record)
    yield "### What to do next"
    yield ""
    for step in steps:
        # A command may contain backticks itself: the fence has to be longer than any run of them.
        fence = "`" * (3 + max((len(run) for run in re.findall(r"`{3,}", step.command)), default=0))
        yield f"{_text(step.purpose)}:"
        yield f"{fence}sh\n{step.command}\n{fence}"
    yield ""
    yield _text(_provenance(record))


def _provenance(record: SearchRecord) -> str:
    task, backbone = record.task, record.leading_backbone
    words = f"Search {record.name}: data {task.name} (digest {task.digest[:12]}), backbone {backbone.name} "
    return f"{words}(digest {backbone.digest[:12]}), seed {format_number(_seed(record))}."


def _seed(record: SearchRecord) -> int | None:
    seed = record.config.get("seed")
    return seed if isinstance(seed, int) else None


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_text, cells))} |"


def _rule(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(words: str) -> str:
    """Return ``words`` on one line, with every character escaped that Markdown or HTML would interpret."""
    # A zero-width space after ":" and "@" keeps GitHub from turning names into links and mentions.
    plain = _CONTROL.sub(" ", without_secrets(words).replace("\u202f", " "))
    return _SPECIAL.sub(r"\\\1", plain).replace("://", ":\u200b//").replace("@", "@\u200b")
