"""Configurations that a user wants tried first: one JSON object of parameters a line."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from search.record import ParameterValue
from search.yaml_file import read_text
from trainables.errors import UsageError

if TYPE_CHECKING:
    from search.space import Space


def read_enqueue(path: str | Path, space: Space) -> list[dict[str, ParameterValue]]:
    """The checked configurations of the file, in order; empty lines are skipped.

    A line may leave parameters out: the sampler fills them in. Raises UsageError with the file and the line.
    """
    file = Path(path)
    found = []
    for number, line in enumerate(re.split(r"\r\n|\n|\r", read_text(file, "enqueue: file")), start=1):
        if not line.strip():
            continue
        try:
            found.append(space.check(_parse(line)))
        except UsageError as error:
            raise UsageError(f"enqueue: {str(file)!r}, line {number}: {error}") from None
    if not found:
        raise UsageError(
            f"enqueue: {str(file)!r}: expected one JSON object of parameters a line, received no line"
        )
    return found


def _parse(line: str) -> dict[str, Any]:
    try:
        content = json.loads(line, object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise UsageError(f"expected a JSON object, received {line.strip()[:60]!r} ({error.msg})") from None
    except (RecursionError, ValueError) as error:
        raise UsageError(
            f"expected a JSON object of parameters, received {line.strip()[:60]!r} ({error})"
        ) from None
    if not isinstance(content, dict):
        raise UsageError(
            f'expected a JSON object such as {{"learning_rate": 0.001}}, received {line.strip()[:60]!r}'
        )
    return content


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name}: expected once, received {names.count(name)} times")
    return dict(pairs)


def _no_constant(word: str) -> NoReturn:
    raise UsageError(f"expected finite numbers, received {word}")
