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

import logging
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import tensorflow as tf

from trainables.errors import SearchError
from trainables.private_api import TESTED_VERSIONS, expect_private_api

_LOG = logging.getLogger(__name__)

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


@cache
def _gradients() -> MutableMapping[str, Any]:
    """TensorFlow's registry of gradients, which has no public API; empty if this TensorFlow has another one.

    Trials train correctly without it and only memory is lost, so another version causes a warning, not an error.
    ``tests/trainables/test_tracing.py`` fails if the registry moves.
    """
    registry = _registry()
    missing = ["gradient_registry._registry"] if registry is None else []
    try:
        tested = TESTED_VERSIONS["tensorflow"]
        expect_private_api("tensorflow", tested, "frees the memory of traced graphs", missing, tf.__version__)
    except SearchError as error:
        _LOG.warning("The memory of traced graphs is not freed, so the process grows: %s", error)
        return {}
    return {} if registry is None else registry


def _registry() -> MutableMapping[str, Any] | None:
    try:
        from tensorflow.python.framework.ops import gradient_registry

        found: MutableMapping[str, Any] = gradient_registry._registry
    except (ImportError, AttributeError):
        return None
    return found
