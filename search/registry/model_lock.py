"""Lock a registered model with nothing but the tags that MLflow offers.

The lock is Lamport's bakery algorithm (Communications of the ACM 17(8), 1974). A process that wants to change a
model's aliases draws a ticket, one more than the highest that it sees, and waits for all processes with lower
tickets. The algorithm needs no atomic operation: each process writes its own tag only and reads those of the others,
which is all that a tracking server supports. It also assumes nothing about the speed of processes.

A process that dies leaves its ticket behind. The others delete a ticket that has not changed for
:data:`STALE_SECONDS` by their own clock. The clocks of two machines are never compared.
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
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Protocol

from search.ledger.driver_lease import boot_id, died_on_this_machine
from search.ledger.driver_lease_row import LeaseHolder
from search.registry.versions import get_registered_model
from search.tracking.mlflow_environment import user_name
from trainables.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

STALE_SECONDS = 30.0
"""Seconds after which an unchanged ticket counts as that of a dead process."""

POLL_SECONDS = 0.2

_PREFIX = "unfreeze.turn."


class TagStore(Protocol):
    """Where the tickets are stored: the tags of one registered model."""

    def read(self) -> dict[str, str]:
        """Return all tags in one request."""
        ...

    def write(self, key: str, value: str) -> None:
        """Set a tag."""
        ...

    def erase(self, key: str) -> None:
        """Delete a tag, if it exists."""
        ...


@dataclass(frozen=True)
class Ticket:
    """The ticket of a process that waits for a lock or holds it, as its tag contains it.

    Attributes:
        number: the process with the lowest number holds the lock; 0 while the process chooses its number.
        by: login name of the user.
        pid: number of the process.
        host: name of its machine.
        boot: identifies this start of its machine.
    """

    number: int = 0
    by: str = ""
    pid: int = 0
    host: str = ""
    boot: str = ""

    @classmethod
    def parse(cls, text: str) -> Ticket:
        """Read a tag. What cannot be read counts as number 0, so that it blocks the lock until it is stale."""
        try:
            known = json.loads(text)
        except ValueError:
            known = None
        if not isinstance(known, dict):
            return cls()
        ticket = cls(**{own.name: known[own.name] for own in fields(cls) if own.name in known})
        return ticket if isinstance(ticket.number, int) else replace(ticket, number=0)

    @property
    def holder(self) -> LeaseHolder:
        """The process, in the form that tells whether it died on this machine."""
        return LeaseHolder(pid=self.pid, host=self.host, boot=self.boot)


@dataclass
class BakeryLock:
    """A lock on the aliases of one registered model.

    Attributes:
        tags: where the tickets are stored.
        name: name of the model, for messages.
        token: identifies this process; it breaks ties between equal tickets.
        stale_seconds: when to delete the tickets of dead processes.
    """

    tags: TagStore
    name: str
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    stale_seconds: float = STALE_SECONDS

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Wait for the lock, and hold it for the context.

        Raises:
            TrackingError: other processes deleted the ticket of this one while it waited.
        """
        try:
            # Inside the block, so that an interrupted wait leaves no ticket behind.
            self._take_ticket()
            self._wait_for_earlier_tickets()
            yield
        finally:
            # If the store is unreachable, the next process finds this ticket stale and deletes it.
            with contextlib.suppress(Exception):
                self.tags.erase(self._key)

    def verify_held(self) -> None:
        """Check again that the lock is still held, directly before a change that cannot be undone.

        Raises:
            TrackingError: other processes took this one for dead and deleted its ticket.
        """
        if self._key not in self.tags.read():
            raise TrackingError(
                f"model {self.name!r}: this process did not respond for so long that it lost its lock. "
                "Nothing was changed; run the command again."
            )

    @property
    def _key(self) -> str:
        return f"{_PREFIX}{self.token}"

    def _take_ticket(self) -> None:
        # Lamport's "choosing" flag: while a ticket is 0, its process may have read the other tickets but not
        # written its own, and could still get a low number. The others wait until it is known.
        self._write_ticket(0)
        self._write_ticket(
            1 + max((ticket.number for ticket in _tickets(self.tags.read()).values()), default=0)
        )

    def _write_ticket(self, number: int) -> None:
        self.number = number
        ticket = Ticket(number, user_name(), os.getpid(), socket.gethostname(), boot_id())
        self.tags.write(self._key, json.dumps(asdict(ticket)))

    def _wait_for_earlier_tickets(self) -> None:
        seen: dict[str, tuple[Ticket, float]] = {}
        while True:
            tickets = _tickets(self.tags.read())
            if self._key not in tickets:
                self.verify_held()
            before = {key: ticket for key, ticket in tickets.items() if self._precedes(key, ticket)}
            if not before:
                return
            now = time.monotonic()
            for key, ticket in before.items():
                # A ticket is stale if it has not changed for stale_seconds on the clock of this process. Tickets
                # contain no times, because the clocks of two machines may differ by minutes.
                if key not in seen or seen[key][0] != ticket:
                    seen[key] = ticket, now
                if died_on_this_machine(ticket.holder) or now - seen[key][1] > self.stale_seconds:
                    self.tags.erase(key)
            time.sleep(POLL_SECONDS)

    def _precedes(self, key: str, ticket: Ticket) -> bool:
        # Two processes may draw the same number; the key breaks the tie in the same way for both.
        return key != self._key and (ticket.number, key) < (self.number, self._key)


def _tickets(tags: dict[str, str]) -> dict[str, Ticket]:
    return {key: Ticket.parse(value) for key, value in tags.items() if key.startswith(_PREFIX)}


class _ModelTags:
    """The tags of one registered model, as the lock needs them."""

    def __init__(self, client: MlflowClient, name: str) -> None:
        self._client, self._name = client, name

    def read(self) -> dict[str, str]:
        return dict(get_registered_model(self._client, self._name).tags)

    def write(self, key: str, value: str) -> None:
        self._client.set_registered_model_tag(self._name, key, value)

    def erase(self, key: str) -> None:
        self._client.delete_registered_model_tag(self._name, key)


@contextmanager
def locked_aliases(client: MlflowClient, model_name: str) -> Iterator[BakeryLock]:
    """Lock the aliases of a registered model against other processes for the context.

    Raises:
        TrackingError: there is no such model, or other processes took this one for dead.
    """
    get_registered_model(client, model_name)
    lock = BakeryLock(_ModelTags(client, model_name), model_name)
    with lock.hold():
        yield lock
