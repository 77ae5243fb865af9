"""One lock for everything that builds or traces a Keras graph: Keras' naming state is global."""

from __future__ import annotations

import threading

BUILDING = threading.RLock()
"""Hold it to build a model or to trace a function."""
