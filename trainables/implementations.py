"""Imports the code behind an entry of a table of valid names when it is first used.

Tables such as :data:`trainables.methods.methods.METHODS` are read by the command line, which must load neither
TensorFlow nor Ray. They therefore hold the dotted path of an implementation instead of the implementation itself.
"""

from __future__ import annotations

import importlib
from typing import Any


def load_implementation(path: str) -> Any:
    """Import and return the class or function with this dotted path, such as ``package.module.name``.

    Raises:
        ImportError: there is no such module.
        AttributeError: the module has no such name.
    """
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)
