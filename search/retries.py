"""Whether a trial that died or hung by a fault of its own goes on, and how; otherwise it ends here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from search.ledger.ledger import Ledger
from search.records.formatting import plural

Cause = Literal["crashed", "timed_out", "out_of_memory"]

_WORDS = {
    "crashed": "its process died",
    "timed_out": "it reported no epoch within trial_timeout",
    "out_of_memory": "no memory left",
}


@dataclass(frozen=True)
class Retries:
    """Counts in the ledger, so that the next run of the command goes on counting.

    Args:
        ledger: of the search.
        most: how often one trial may go on.
        batch_size: of all trials whose memory is large enough.
        told: takes a line for whoever watches.
    """

    ledger: Ledger
    most: int
    batch_size: int
    told: Callable[[str], None]

    def go_on(self, number: int, cause: Cause, error: str) -> bool:
        """Whether a running trial is to go on; if not, the ledger has its end.

        A lack of memory gives one more try with batches of half the size, which ``most`` does not count; without
        that left, the configuration is one that samplers keep away from.
        """
        trial = self.ledger.trial(number)
        if cause == "out_of_memory":
            batch = self.batch_size // 2
            if trial.batch_size is not None or not batch:
                self.ledger.finish(number, "pruned", reason=cause, error=error)
                return False
            self.ledger.retry(number, retries=trial.retries, batch_size=batch)
            self.told(f"trial {number}: {_WORDS[cause]}; it goes on with batches of {batch}")
            return True
        if trial.retries >= self.most:
            words = f"{_WORDS[cause]}, {plural(trial.retries + 1, 'time')}"
            self.ledger.finish(number, "failed", reason=cause, error=f"{error}\n{words}".strip())
            return False
        self.ledger.retry(number, retries=trial.retries + 1, batch_size=trial.batch_size)
        self.told(f"trial {number}: {_WORDS[cause]}; it goes on (retry {trial.retries + 1} of {self.most})")
        return True
