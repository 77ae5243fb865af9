"""Finds out which trial crashed a shared engine, and in which order the trials of that engine are retried.

The trials of a machine share one process, the engine. When it dies (a crash of native code, no memory, a signal), all
its trials stop, and it is not visible from outside which of them was the cause. Only a trial that was alone in its
engine is certainly the cause.

The trials of a dead engine are therefore retried one at a time, the newest first: each has to train an epoch before the
next one may join it, and before any new trial starts. If the engine dies again meanwhile, the trial that was at its
first epoch becomes the suspect. The suspect is retried before all others, so that it is alone in its engine, while its
neighbours wait until it has trained an epoch or has been given up. A trial that always crashes at the same point thus
takes its neighbours along at most twice, and they are never blamed.

The module is plain bookkeeping of trials by number and engines by instance; it uses neither Ray nor the ledger.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field


@dataclass
class CrashAttribution:
    """Keeps track of trials and their engines, and decides which trials are retried, and when. Not thread-safe."""

    _engines: dict[int, str | None] = field(default_factory=dict)
    """The engine of each running trial; None until the trial has reported an epoch."""
    _dead: set[str] = field(default_factory=set)
    """Engines that have died. Reports of their trials may still arrive, in any order."""
    _unconfirmed: set[int] = field(default_factory=set)
    """Trials that may have been in an engine that died, and have not reported since."""
    _suspect: int | None = None
    """The trial that was at its first epoch when the engine died, if it was in that engine."""
    _exonerated: set[int] = field(default_factory=set)
    """Trials whose engine was killed because of another trial."""
    _probation: int | None = None
    """The trial that is being retried and has not trained an epoch since."""
    _queue: list[int] = field(default_factory=list)
    """Trials to retry one at a time, the newest last."""
    _suspects: list[int] = field(default_factory=list)
    """Trials to retry one at a time before those in the queue: suspects and trials that were the cause."""
    _ready: list[int] = field(default_factory=list)
    """Trials to retry at any time, next to others."""

    @property
    def holding(self) -> bool:
        """Whether no trial may start now: one on probation must stay alone with those that it is tested against."""
        return bool(self._unconfirmed) or self._probation is not None

    def next_retry(self) -> int | None:
        """Return the trial to retry now; None if there is none, or if it has to wait."""
        if self.holding:
            return None
        for waiting in (self._suspects, self._queue):
            if waiting:
                self._probation = waiting.pop()
                return self._probation
        return self._ready.pop(0) if self._ready else None

    def trial_started(self, number: int) -> None:
        """A trial has started."""
        self._engines[number] = None

    def engine_neighbours(self, number: int) -> frozenset[int]:
        """Return the other running trials that are in the engine of a trial, or may be."""
        mine = self._engines.get(number)
        others = ((n, e) for n, e in self._engines.items() if n != number)
        # A trial without a report may be in any engine. Counting it as a neighbour is safe: it only makes the
        # attribution less certain, and no innocent trial is blamed.
        return frozenset(n for n, engine in others if None in (mine, engine) or engine == mine)

    def epoch_reported(self, number: int, engine: str | None, trained: bool) -> None:
        """A trial has reported an epoch from ``engine``; ``trained`` is False if the epoch is from its checkpoint."""
        self._engines[number] = engine
        if trained:
            self._probation = None if self._probation == number else self._probation
            self._suspect = None if self._suspect == number else self._suspect
        # A report from a dead engine was sent before the death, so it confirms nothing.
        if engine not in self._dead:
            self._unconfirmed.discard(number)
            self._exonerated.discard(number)

    def trial_ended(self, number: int) -> None:
        """A trial has ended, or its own process has died, which harms no other trial."""
        self._engines.pop(number, None)
        self._unconfirmed.discard(number)
        self._exonerated.discard(number)
        self._probation = None if self._probation == number else self._probation

    def engine_died(self, number: int, engine: str | None) -> bool:
        """A trial has reported that its engine died; ``engine`` is None if it is not known which engine.

        Returns:
            Whether the trial was the cause. If it was, either call :meth:`requeue` or let the trial end; if it was
            not, it is retried without further calls.
        """
        self._engines[number] = engine
        # The engine was killed because another trial hung (engine_stopped), so this loss is no evidence
        # against the trial or its neighbours.
        if number in self._exonerated:
            self.trial_ended(number)
            self._ready.append(number)
            return False
        blamed = False
        # Only the first report of a crash decides who is blamed. Later reports come from the neighbours, which lost
        # their engine in the same crash. The last of them has no neighbours left here and would be blamed.
        if number not in self._unconfirmed and engine not in self._dead:
            neighbours = self.engine_neighbours(number)
            # The trial on probation may have been in another engine. It is retried as the suspect only if it
            # reports a crash itself, and it is cleared when it trains another epoch.
            blamed, self._suspect = not neighbours, self._probation
            self._unconfirmed |= neighbours
        self._dead |= {engine} if engine else set()
        self.trial_ended(number)
        if number == self._suspect and not blamed:
            self._suspects.append(number)
        elif not blamed:
            # Sorted by number, because next_retry takes the newest trial, the last one, first.
            bisect.insort(self._queue, number)
        return blamed

    def engine_stopped(self, number: int, engine: str) -> None:
        """An engine was killed because of a trial that hung while its neighbours went on: the cause is certain.

        The neighbours are retried at any time. For the trial itself, either call :meth:`requeue` or let it end.
        """
        self._engines[number] = engine
        self._dead.add(engine)
        self._suspect = None
        # A trial on probation has not shown yet that it can train, so it is not cleared.
        self._exonerated |= self.engine_neighbours(number) - {self._probation}
        self.trial_ended(number)

    def requeue(self, number: int, alone: bool) -> None:
        """Retry a trial that was the cause: before all others and ``alone``, or at any time next to others."""
        (self._suspects if alone else self._ready).append(number)
