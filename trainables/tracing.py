"""Builds and traces TensorFlow graphs safely: one at a time, and so that their memory can be freed.

Keras keeps the state by which it names layers in global variables, and tracing uses it, too. Threads of several trials
therefore share one lock, :data:`BUILD_LOCK`.

For each ``tf.custom_gradient`` in a graph (in ``silu``, and in every step of a Keras optimizer) TensorFlow registers a
gradient under a name of its own and never removes it. The entry keeps the whole graph and its variables alive as long
as the process. Its name is looked up only while that graph is differentiated. Graphs that are traced here contain their
gradients already, so :func:`tracing` removes the entries afterwards. Without this, an engine grows by every program it
compiles.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from tensorflow.python.framework import ops

BUILD_LOCK = threading.RLock()
"""Hold it while building a Keras model or tracing a function."""

_PREFIX = "CustomGradient-"
"""How TensorFlow names the gradients that it registers while tracing."""


@contextmanager
def tracing() -> Iterator[None]:
    """Trace functions inside the block, under the lock. Their graphs must not be differentiated afterwards."""
    with BUILD_LOCK:
        known = set(_gradients())
        try:
            yield
        finally:
            gradients = _gradients()
            for name in [n for n in gradients if n.startswith(_PREFIX) and n not in known]:
                del gradients[name]


def _gradients() -> MutableMapping[str, Any]:
    """TensorFlow's registry of gradients, which has no public API; empty if a version of TensorFlow has none.

    A test (``tests/trainables/test_tracing.py``) fails if the registry moves: then graphs would leak.
    """
    found: MutableMapping[str, Any] = getattr(getattr(ops, "gradient_registry", None), "_registry", {})
    return found
