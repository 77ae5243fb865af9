"""Limits BLAS, which computes the matrix products of NumPy, to one thread of the processor."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import scipy.linalg  # noqa: F401  it has a BLAS of its own, which has to be loaded to be limited
from threadpoolctl import threadpool_limits

_lock = threading.Lock()
_users = 0
_limit: threadpool_limits | None = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread for the context. Several Python threads may be inside at the same time.

    The number of threads belongs to the whole process. If each context restored the number that it found, one that
    began inside another and ended after it would leave BLAS with one thread. So the first one sets the limit, and the
    last one removes it.
    """
    global _users, _limit
    with _lock:
        if _users == 0:
            _limit = threadpool_limits(1, user_api="blas")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0 and _limit is not None:
                _limit.restore_original_limits()
                _limit = None
