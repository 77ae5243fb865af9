"""Read the file of ``--enqueue``: configurations to try first, one JSON object of parameters per line."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from search.config.strict_yaml import read_text
from search.config.validation_errors import quote_key
from search.records.record import ParameterValue
from trainables.errors import UsageError

if TYPE_CHECKING:
    from search.config.space import Space


def read_enqueue(path: str | Path, space: Space) -> list[dict[str, ParameterValue]]:
    """Return the configurations of the file, in order.

    Empty lines are skipped. The sampler chooses the parameters that a line leaves out.

    Raises:
        UsageError: the file cannot be read, holds no configuration, or has one that does not fit ``space``; the message
            names the file and the line.
    """
    file = Path(path)
    found = []
    # Not splitlines(): it also splits at characters such as U+2028, which JSON strings may contain.
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
        raise UsageError(f"expected a JSON object, received {_start(line)} ({error.msg})") from None
    except RecursionError:
        raise UsageError(f"expected a JSON object, received {_start(line)} (a deep nest)") from None
    except ValueError as error:  # Python refuses to convert numbers of more than 4,300 digits
        raise UsageError(f"expected a JSON object, received {_start(line)} ({error})") from None
    if not isinstance(content, dict):
        raise UsageError(
            f'expected a JSON object such as {{"learning_rate": 0.001}}, received {_start(line)}'
        )
    return content


def _start(line: str) -> str:
    """Return the first letters of a line, which are enough to recognise it in a message."""
    return repr(line.strip()[:60])


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs as a dictionary. Python's parser would silently keep the last of two equal keys."""
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise UsageError(f"{quote_key(name)}: expected once, received {count:,} times")
    return dict(pairs)


def _no_constant(word: str) -> NoReturn:
    raise UsageError(f"expected finite numbers, received {word}")
