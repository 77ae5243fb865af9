"""Defines every error that unfreeze raises on purpose.

UnfreezeError
├── UsageError         a wrong argument or configuration key          (exit code 2)
├── SearchError        the search cannot start or go on               (exit code 1)
│   ├── DataError          the data is missing, unreadable or unfit for training
│   ├── BackboneError      the backbone is unknown, has no weights, or cannot be cut
│   ├── LedgerError        the ledger is unreachable, damaged or contradicts the command
│   │   └── LeaseLost          another process drives the search now
│   ├── TrackingError      the tracking server or the registry refuses
│   └── ClusterError       there is no Ray cluster, or none that can run a trial
└── TrialError         one trial ends and the search goes on; carries a ``reason``
    ├── Diverged           the loss became NaN or infinite
    └── OutOfMemory        the device or the host had no memory left

A message names the argument, what was expected and what was received.
"""

from __future__ import annotations


class UnfreezeError(Exception):
    """The base of all errors that a user can act on. The message is shown without a traceback."""


class UsageError(UnfreezeError):
    """A command line argument, configuration key or parameter is wrong."""


class SearchError(UnfreezeError):
    """The search as a whole cannot start or go on."""


class DataError(SearchError):
    """The dataset is missing, unreadable or unfit for training."""


class BackboneError(SearchError):
    """The backbone cannot be loaded or cut into blocks."""


class LedgerError(SearchError):
    """The ledger is unreachable, damaged, or contradicts the command."""


class LeaseLost(LedgerError):
    """Another process has taken over the search: this one may write nothing more."""


class TrackingError(SearchError):
    """The MLflow tracking server or model registry cannot do what was requested."""


class ClusterError(SearchError):
    """There is no Ray cluster, or none whose nodes can run a trial."""


class TrialError(UnfreezeError):
    """One trial cannot go on. ``reason`` is a short fixed word that is recorded with the trial."""

    reason = "crashed"


class Diverged(TrialError):
    """The loss became NaN or infinite."""

    reason = "diverged"


class OutOfMemory(TrialError):
    """The device or the host ran out of memory."""

    reason = "out_of_memory"
