"""Taking turns at a registered model, where nothing but tags that each process reads and writes can be shared.

Lamport's bakery algorithm (Communications of the ACM 17, 1974): whoever wants to change a model's aliases draws a
number, one more than all that are drawn, and waits for those with lower ones. It needs no operation but reading and
writing one's own tag, and no process assumes how fast another is. A process that dies leaves its number behind; it is
taken away once it has not changed for a while by the clock of those who wait. No two clocks are compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from search.ledger.driver_lease import boot_id, died_on_this_machine
from search.tracking.mlflow_environment import user_name
from trainables.errors import TrackingError

STALE_SECONDS = 30.0
"""Seconds after which a turn that does not end belongs to a dead process."""

POLL_SECONDS = 0.2

_PREFIX = "unfreeze.turn."


class TagStore(Protocol):
    """Where the numbers are kept: the tags of one registered model."""

    def read(self) -> dict[str, str]:
        """All tags as they are now, in one look."""
        ...

    def write(self, key: str, value: str) -> None:
        """Set a tag."""
        ...

    def erase(self, key: str) -> None:
        """Delete a tag, if it is there."""
        ...


@dataclass
class BakeryLock:
    """The right to change the aliases of one registered model."""

    tags: TagStore
    name: str
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    stale_seconds: float = STALE_SECONDS

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Wait for the turn and hold it.

        Raises:
            TrackingError: it was taken away while this process waited.
        """
        try:
            self._take_ticket()
            self._wait_for_earlier_tickets()
            yield
        finally:
            with contextlib.suppress(
                Exception
            ):  # the store is away: whoever comes next finds this number dead
                self.tags.erase(self._key)

    def verify_held(self) -> None:
        """Look again, right before what can't be undone.

        Raises:
            TrackingError: others took this process for dead.
        """
        if self._key not in self.tags.read():
            raise TrackingError(
                f"model {self.name!r}: this process was silent for so long that its turn was taken away. "
                "Nothing was changed; run the command again."
            )

    @property
    def _key(self) -> str:
        return f"{_PREFIX}{self.token}"

    def _take_ticket(self) -> None:
        self._write_ticket(0)  # a number is being drawn: the others wait until it is known
        self._write_ticket(
            1 + max((_number(mark) for mark in _tickets(self.tags.read()).values()), default=0)
        )

    def _write_ticket(self, number: int) -> None:
        self.number = number
        mark = {
            "number": number,
            "by": user_name(),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "boot": boot_id(),
        }
        self.tags.write(self._key, json.dumps(mark))

    def _wait_for_earlier_tickets(self) -> None:
        seen: dict[str, tuple[object, float]] = {}
        while True:
            marks = _tickets(self.tags.read())
            if self._key not in marks:
                self.verify_held()
            before = {key: mark for key, mark in marks.items() if self._precedes(key, mark)}
            if not before:
                return
            now = time.monotonic()
            for key, mark in before.items():
                if key not in seen or seen[key][0] != mark:
                    seen[key] = mark, now
                if died_on_this_machine(mark) or now - seen[key][1] > self.stale_seconds:
                    self.tags.erase(key)
            time.sleep(POLL_SECONDS)

    def _precedes(self, key: str, mark: dict[str, Any]) -> bool:
        return key != self._key and (_number(mark), key) < (self.number, self._key)


def _tickets(tags: dict[str, str]) -> dict[str, dict[str, Any]]:
    return {key: _read(value) for key, value in tags.items() if key.startswith(_PREFIX)}


def _read(value: str) -> dict[str, Any]:
    try:
        mark = json.loads(value)
    except ValueError:
        mark = None
    return mark if isinstance(mark, dict) else {}


def _number(mark: dict[str, Any]) -> int:
    number = mark.get("number")
    return number if isinstance(number, int) else 0
