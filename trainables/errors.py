"""Every error that unfreeze raises on purpose.

UnfreezeError
├── UsageError         a wrong argument or config key            (exit code 2)
├── SearchError        the search can't start or go on           (exit code 1)
│   ├── DataError          no data, unreadable or unfit data
│   ├── BackboneError      no such backbone, weights missing, graph without cuts
│   ├── LedgerError        the ledger is unreachable, damaged or contradicts the command
│   │   └── TakenOver          another process drives the search now
│   ├── TrackingError      the tracking server or the registry refuses
│   └── ClusterError       no Ray cluster, or none that can run a trial
└── TrialError         one trial ends; the search goes on; carries a ``reason``
    ├── Diverged           loss became NaN or infinite
    └── OutOfMemory        the device or the host had no memory left

A message names the argument, what was expected and what was received.
"""

from __future__ import annotations


class UnfreezeError(Exception):
    """Base of all errors that a user can act on; its text is shown without a traceback."""


class UsageError(UnfreezeError):
    """A command line argument, config key or parameter is wrong."""


class SearchError(UnfreezeError):
    """The search as a whole can't start or can't go on."""


class DataError(SearchError):
    """The dataset is missing, unreadable or unfit for training."""


class BackboneError(SearchError):
    """The backbone can't be loaded or can't be cut into blocks."""


class LedgerError(SearchError):
    """The ledger is unreachable, damaged, or contradicts what was asked for."""


class LeaseLost(LedgerError):
    """Another process drives the search now: this one may write nothing more."""


class TrackingError(SearchError):
    """The MLflow tracking server or model registry can't do what was asked."""


class ClusterError(SearchError):
    """There is no Ray cluster, or none whose nodes can run a trial."""


class TrialError(UnfreezeError):
    """One trial can't go on. ``reason`` is a short fixed word that is recorded with it."""

    reason = "crashed"


class Diverged(TrialError):
    """The loss became NaN or infinite."""

    reason = "diverged"


class OutOfMemory(TrialError):
    """The device or the host ran out of memory."""

    reason = "out_of_memory"
