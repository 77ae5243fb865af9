"""Reads the tensors of a PyTorch file in its legacy format (before version 1.6), without PyTorch.

Such a file is a sequence of pickles, followed by the raw numbers. Pickles can run code, so a file is read only if its
SHA-256 is the expected one, and even then with an unpickler that knows no functions but the few that a file of tensors
needs. The format is that of ``_legacy_load`` in ``torch/serialization.py``:

1. a magic number, the version of the protocol, and facts about the machine that wrote the file;
2. a dictionary of tensors, which refer to storages by key, and the list of these keys;
3. for each key the number of elements as a 64-bit integer, then the elements, in little-endian order.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.errors import BackboneError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001

DTYPES: Mapping[str, str] = {"FloatStorage": "<f4", "LongStorage": "<i8"}
"""NumPy's dtype of the elements of each kind of storage."""


@dataclass(frozen=True)
class _Storage:
    """A one-dimensional array in the file."""

    key: str
    dtype: str


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides are numbers of elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _Tensor:
    """Stand in for ``torch._utils._rebuild_tensor_v2``. Gradients and hooks, the last arguments, are left out."""
    return _Tensor(storage, offset, shape, strides)


class _Unpickler(pickle.Unpickler):
    """An unpickler of tensors and dictionaries of tensors, and of nothing else."""

    _GLOBALS: Mapping[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        **{("torch", kind): dtype for kind, dtype in DTYPES.items()},
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._GLOBALS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed") from None

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _location, _count, view = pid
        if kind != "storage" or dtype not in DTYPES.values() or view is not None:
            raise pickle.UnpicklingError(f"unexpected reference to {kind!r}")
        return _Storage(str(key), dtype)


def read_tensors(path: Path, sha256: str) -> dict[str, NDArray[Any]]:
    """Return the tensors in ``path`` by name, each an array of its own.

    Args:
        path: a ``.pth`` file that holds a dictionary of tensors.
        sha256: hexadecimal digest that the file must have. It is compared before anything is parsed.

    Raises:
        BackboneError: the file can't be read, has another digest, or holds something else than tensors.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BackboneError(f"weights {path}: {error.strerror or error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise BackboneError(
            f"weights {path}: expected a file with SHA-256 {sha256}, received {found}; "
            "the file is damaged or of another version, so it is not read. Install its package again."
        )
    try:
        return parse_tensors(content)
    except Exception as error:  # the parser is fed arbitrary bytes, so it may raise anything
        raise BackboneError(f"weights {path}: not a readable file of tensors ({error})") from error


def parse_tensors(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the tensors in the ``content`` of a file. See :func:`read_tensors`, which checks its digest first.

    Raises:
        Exception: the content is damaged or holds something else than tensors.
    """
    file = io.BytesIO(content)
    start = (_next(file), _next(file))
    if start != (MAGIC_NUMBER, PROTOCOL_VERSION):
        raise ValueError(f"expected PyTorch's legacy format, received the numbers {start}")
    machine = _next(file)
    if machine.get("little_endian") is not True:
        raise ValueError("expected numbers in little-endian order")
    tensors: dict[str, _Tensor] = _next(file)
    dtypes = {t.storage.key: t.storage.dtype for t in tensors.values()}
    storages = {}
    for key in _next(file):
        count = int.from_bytes(file.read(8), "little")
        dtype = np.dtype(dtypes[key])
        # frombuffer raises ValueError if the file ends too early.
        storages[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
    return {name: _view(storages[tensor.storage.key], tensor) for name, tensor in tensors.items()}


def _next(file: io.BytesIO) -> Any:
    return _Unpickler(file).load()


def _view(storage: NDArray[Any], tensor: _Tensor) -> NDArray[Any]:
    """Copy a tensor out of its storage."""
    last = tensor.offset + sum(
        (size - 1) * step for size, step in zip(tensor.shape, tensor.strides, strict=True)
    )
    # as_strided does not check bounds: it would read memory beyond the storage.
    if min((tensor.offset, *tensor.strides, *tensor.shape)) < 0 or last >= len(storage):
        raise ValueError("a tensor lies outside of its storage")
    strides = [step * storage.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides).copy()
