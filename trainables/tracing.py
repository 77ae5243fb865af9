"""Tracing graphs that can be let go of.

TensorFlow registers the gradient of each ``tf.custom_gradient`` that it meets in a graph (in ``silu``, and in every
step of a Keras optimizer) under a name of its own, for as long as the process lives, and with it the whole graph and
its variables. The name is looked up only while that graph is differentiated. What is traced here holds its gradients
already, so the entries go when the trace is made.

One lock for everything that builds or traces a Keras graph: Keras' naming state is global.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from tensorflow.python.framework import ops

BUILD_LOCK = threading.RLock()
"""Hold it to build a model or to trace a function."""


_PREFIX = "CustomGradient-"


@contextmanager
def tracing() -> Iterator[None]:
    """Trace inside the block; what it makes must not be differentiated later. Holds the lock on building graphs."""
    with BUILD_LOCK:
        known = set(_gradients())
        try:
            yield
        finally:
            gradients = _gradients()
            for name in [n for n in gradients if n.startswith(_PREFIX) and n not in known]:
                del gradients[name]


def _gradients() -> MutableMapping[str, Any]:
    """TensorFlow's registry; empty where a version of it keeps none."""
    found: MutableMapping[str, Any] = getattr(getattr(ops, "gradient_registry", None), "_registry", {})
    return found
