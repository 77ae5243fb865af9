"""``unfreeze promote``: challenger to champion, if it passes the gate."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from search.config.argument_parser import Parser, add_store, add_verbose
from search.config.validation_errors import shown
from search.tracking.stores import known_store
from trainables.errors import UsageError

if TYPE_CHECKING:
    from search.registry.promotion import Contest, WhichPoint


def parser() -> Parser:
    """Which model, in which store, by which rule."""
    made = Parser(
        "promote",
        "Make a model's challenger its champion if it is better on the same test images, or as good and cheaper.\n"
        "models:/MODEL@champion is what serves. Exit code 1 if the challenger does not pass.",
    )
    made.add_argument("model", metavar="MODEL", help="registered name, such as unfreeze-digits")
    made.add_argument(
        "--margin",
        metavar="X",
        default="1%",
        help="accuracy that a cheaper challenger may lack, 1%% or 0.01 [1%%]",
    )
    made.add_argument(
        "--max-forgetting",
        metavar="X",
        help="accuracy on the old task (--remember of the search) that may be lost, 1%% or 0.01; 0: surely nothing",
    )
    made.add_argument(
        "--trial",
        metavar="N",
        help="which point of the front, after a search with several objectives; asked for if not given",
    )
    made.add_argument("--dry-run", action="store_true", help="show the comparison and change nothing")
    made.add_argument(
        "--force", action="store_true", help="promote whatever the comparison says; it is recorded"
    )
    add_store(made)
    add_verbose(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Compare, move the alias, and say what moved."""
    margin, trial = _fraction("margin", options.margin), _number(options.trial)
    if options.max_forgetting is not None:
        options.max_forgetting = _fraction("max-forgetting", options.max_forgetting)
    from search.registry import WhichPoint

    uri = known_store(options.tracking_uri, options.storage)
    try:
        return _promoted(options, uri, margin, trial)
    except WhichPoint as asked:
        return _promoted(options, uri, margin, _asked(asked))


def _promoted(options: argparse.Namespace, uri: str, margin: float, trial: int | None) -> int:
    from search.registry import Contest, PromotionRefused, judge, promote

    if options.dry_run:
        contest = judge(options.model, uri, margin=margin, trial=trial, max_forgetting=options.max_forgetting)
        _show(contest)
        print(f"{options.model}: nothing was changed (--dry-run)")
        return 0 if contest.judgement.passes or options.force else 1
    try:
        done = promote(
            options.model,
            uri,
            margin=margin,
            force=options.force,
            trial=trial,
            max_forgetting=options.max_forgetting,
        )
    except PromotionRefused as refused:
        _show(refused.contest)
        raise
    if done.judgement is not None:
        _show(Contest(done.champion, done.before, done.judgement))
    before = f" after version {done.before.version}" if done.before else ""
    forced = ", by force" if done.forced else ""
    print(f"{options.model}: version {done.champion.version} is the champion{before}{forced}")
    print(f"load it as models:/{options.model}@champion")
    return 0


def _asked(which: WhichPoint) -> int:
    """The trial that a person chooses from the table; without one at a terminal, the error that says so."""
    from rich.console import Console

    from search.front_table import front_table

    console = Console(highlight=False)
    console.print(front_table(which.points, which.champion))
    known = [point.trial for point in which.points]
    if which.received is not None or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(f"--{which}")
    while True:
        try:
            # By the console: Python would write the question to the stream of errors, which libraries are kept from.
            answer = console.input(f"which point, by its trial? [{known[0]}] ", markup=False).strip()
        except EOFError:
            raise UsageError(f"--{which}") from None
        if not answer or (answer.isascii() and answer.isdecimal() and int(answer) in known):
            return int(answer or known[0])
        print(f"expected one of {', '.join(map(str, known))}, received {shown(answer)}")


def _number(text: str | None) -> int | None:
    """The number of a trial."""
    if text is not None and not re.fullmatch(r"[0-9]{1,9}", text.strip(), re.ASCII):
        raise UsageError(f"--trial: expected the number of a trial, received {shown(text)}")
    return None if text is None else int(text)


def _show(contest: Contest) -> None:
    from rich.console import Console

    from search.contest_table import contest_table

    Console().print(contest_table(contest), highlight=False)


def _fraction(name: str, text: str) -> float:
    """``1%`` or ``0.01``."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})\s*(%?)", text.strip(), re.ASCII)
    value = float(found[1]) / (100 if found[2] else 1) if found else -1.0
    if not 0 <= value < 1:
        raise UsageError(
            f"--{name}: expected an accuracy such as 1% or 0.01, below 100%, received {shown(text)}"
        )
    return value
