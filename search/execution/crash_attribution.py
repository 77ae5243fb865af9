"""Which trial was to blame for a dead engine, and in which order those that it took along come back.

A machine's trials share one process, the engine: when it dies (a crash of native code, no memory, a signal), all its
trials stop. Which of them was to blame can't be seen from outside: only one that was alone is. Several come back one
after another, the newest first: each has to train an epoch before the next may join, and before anything new starts.
If the engine dies meanwhile, the one that was at its first epoch is suspected: it comes back before all others, and
so is alone in an engine the next time, while its neighbours wait until it has trained an epoch or has been given up.
So a trial that always dies at the same place takes its neighbours along twice at most, and they are never blamed.

Plain bookkeeping of trials by number and engines by name; nothing here knows of Ray or of the ledger.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field


@dataclass
class CrashAttribution:
    """Told of what happens to trials; says which of them go on, and when. Not for several threads."""

    _engines: dict[int, str | None] = field(default_factory=dict)
    """The trials that are under way, each with its engine; None until it has said so."""
    _dead: set[str] = field(default_factory=set)
    """Engines that have died. What trials have to tell of them may still come in, in any order."""
    _awaited: set[int] = field(default_factory=set)
    """Trials that may have been in an engine that has died, and have not said so yet."""
    _suspected: int | None = None
    """The one that was at its first epoch when the engine died, if it was in there."""
    _excused: set[int] = field(default_factory=set)
    """Those whose engine was stopped because of another trial."""
    _on_trial: int | None = None
    """The one that has come back and has not trained an epoch since."""
    _queue: list[int] = field(default_factory=list)
    """Those that come back one after another, the newest last."""
    _first: list[int] = field(default_factory=list)
    """The same, before them: those that were suspected or to blame."""
    _free: list[int] = field(default_factory=list)
    """Those that may come back at any time."""

    @property
    def holding(self) -> bool:
        """Whether nothing may start right now."""
        return bool(self._awaited) or self._on_trial is not None

    def next(self) -> int | None:
        """The trial that comes back now; None if there is none, or it has to wait."""
        if self.holding:
            return None
        for waiting in (self._first, self._queue):
            if waiting:
                self._on_trial = waiting.pop()
                return self._on_trial
        return self._free.pop(0) if self._free else None

    def began(self, number: int) -> None:
        """A trial is under way."""
        self._engines[number] = None

    def beside(self, number: int) -> frozenset[int]:
        """The other trials under way that are in the engine of a trial, or may be."""
        mine = self._engines.get(number)
        others = ((n, e) for n, e in self._engines.items() if n != number)
        return frozenset(n for n, engine in others if None in (mine, engine) or engine == mine)

    def heard(self, number: int, engine: str | None, trained: bool) -> None:
        """A trial has reported an epoch; ``trained`` unless it was that of its checkpoint."""
        self._engines[number] = engine
        if trained:
            self._on_trial = None if self._on_trial == number else self._on_trial
            self._suspected = None if self._suspected == number else self._suspected
        if engine not in self._dead:
            self._awaited.discard(number)
            self._excused.discard(number)

    def ended(self, number: int) -> None:
        """A trial is over, in whatever way, or its own process died, which harms nobody else."""
        self._engines.pop(number, None)
        self._awaited.discard(number)
        self._excused.discard(number)
        self._on_trial = None if self._on_trial == number else self._on_trial

    def died(self, number: int, engine: str | None) -> bool:
        """A trial's engine has died, or some have and it is not known which; returns whether the trial was to blame.

        One that was not comes back by itself. Of the other either :meth:`again` is to be called, or it is over.
        """
        self._engines[number] = engine
        if number in self._excused:
            self.ended(number)
            self._free.append(number)
            return False
        blamed = False
        if number not in self._awaited and engine not in self._dead:
            beside = self.beside(number)
            blamed, self._suspected = not beside, self._on_trial
            self._awaited |= beside
        self._dead |= {engine} if engine else set()
        self.ended(number)
        if number == self._suspected and not blamed:
            self._first.append(number)
        elif not blamed:
            bisect.insort(self._queue, number)
        return blamed

    def stopped(self, number: int, engine: str) -> None:
        """A trial was to blame, without doubt, for its engine's being stopped: those beside it go on at any time.

        :meth:`again` is to be called, or it is over.
        """
        self._engines[number] = engine
        self._dead.add(engine)
        self._suspected = None
        self._excused |= self.beside(number) - {self._on_trial}
        self.ended(number)

    def again(self, number: int, alone: bool) -> None:
        """A trial that was to blame goes on: before all others and ``alone`` at first, or at any time."""
        (self._first if alone else self._free).append(number)
