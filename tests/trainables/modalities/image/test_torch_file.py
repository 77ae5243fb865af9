"""PyTorch's legacy files are read without PyTorch, and nothing in them is run."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import sys
from collections import Counter, OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.errors import BackboneError
from trainables.modalities.image.efficientnet_lite0.torch_file import (
    MAGIC_NUMBER,
    PROTOCOL_VERSION,
    parse_tensors,
    read_tensors,
)


class FloatStorage:
    """As PyTorch names it; so are the next three."""


class LongStorage: ...


class HalfStorage: ...


def _rebuild_tensor_v2(*arguments: Any) -> None: ...


KINDS = {"<f4": FloatStorage, "<i8": LongStorage, "<f2": HalfStorage}


class Reference:
    """Stands for a storage while a file is written."""

    def __init__(self, key: str, values: np.ndarray) -> None:
        self.key, self.values = key, values


class Tensor:
    """A view of a storage, pickled as PyTorch pickles it."""

    def __init__(
        self, storage: Reference, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> None:
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_tensor_v2, self.arguments


class Writer(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Reference):
            return None
        return ("storage", KINDS[value.values.dtype.str], value.key, "cpu", len(value.values), None)


def name_as_torch(patch: pytest.MonkeyPatch) -> None:
    """Let pickle find the names of PyTorch, which is not installed."""
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")
    for kind in KINDS.values():
        patch.setattr(kind, "__module__", "torch")
        patch.setattr(torch, kind.__name__, kind, raising=False)
    patch.setattr(_rebuild_tensor_v2, "__module__", "torch._utils")
    patch.setattr(utils, "_rebuild_tensor_v2", _rebuild_tensor_v2, raising=False)
    patch.setitem(sys.modules, "torch", torch)
    patch.setitem(sys.modules, "torch._utils", utils)


@pytest.fixture
def torch_names(monkeypatch: pytest.MonkeyPatch) -> None:
    name_as_torch(monkeypatch)


def written(state: Any, storages: list[Reference], **machine: Any) -> bytes:
    """The content of a file in the legacy format."""
    file = io.BytesIO()
    facts = {"protocol_version": PROTOCOL_VERSION, "little_endian": True, **machine}
    for value in (MAGIC_NUMBER, PROTOCOL_VERSION, facts):
        pickle.dump(value, file, protocol=2)
    Writer(file, protocol=2).dump(state)
    pickle.dump([storage.key for storage in storages], file, protocol=2)
    for storage in storages:
        file.write(struct.pack("<q", len(storage.values)) + storage.values.tobytes())
    return file.getvalue()


def one(values: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    storage = Reference("7", values)
    return written(OrderedDict(w=Tensor(storage, offset, shape, strides)), [storage])


@pytest.mark.usefixtures("torch_names")
def test_tensors_are_views_of_storages() -> None:
    numbers, counter = Reference("a", np.arange(12, dtype="<f4")), Reference("b", np.array([41], "<i8"))
    state = OrderedDict(
        whole=Tensor(numbers, 0, (3, 4), (4, 1)),
        turned=Tensor(numbers, 0, (4, 3), (1, 4)),
        part=Tensor(numbers, 8, (2, 2), (2, 1)),
        count=Tensor(counter, 0, (), ()),
    )
    found = parse_tensors(written(state, [counter, numbers]))
    np.testing.assert_array_equal(found["whole"], np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(found["turned"], np.arange(12).reshape(3, 4).T)
    np.testing.assert_array_equal(found["part"], [[8, 9], [10, 11]])
    assert found["count"] == 41
    assert found["count"].shape == ()
    assert {name: value.dtype.str for name, value in found.items()} == {
        "whole": "<f4",
        "turned": "<f4",
        "part": "<f4",
        "count": "<i8",
    }
    found["whole"][:] = 0
    assert found["turned"].any()


@pytest.mark.usefixtures("torch_names")
@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (5,), (1,)), (3, (2,), (1,)), (-1, (2,), (1,)), (3, (2,), (-1,)), (0, (2, 2), (4, 1)), (4, (), ())],
)
def test_a_tensor_outside_of_its_storage_is_refused(
    offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="outside of its storage"):
        parse_tensors(one(np.zeros(4, "<f4"), offset, shape, strides))


@pytest.mark.usefixtures("torch_names")
def test_other_numbers_are_refused() -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"torch\.HalfStorage is not allowed"):
        parse_tensors(one(np.zeros(4, "<f2"), 0, (4,), (1,)))


class Runs:
    """An object that calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize(
    "evil", [Runs(os.mkdir, "made"), Runs(eval, "open('made', 'w')"), Counter("a"), Path("made")]
)
@pytest.mark.parametrize("place", range(4))
def test_nothing_in_a_file_is_run(
    evil: Any, place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parts = [MAGIC_NUMBER, PROTOCOL_VERSION, {"little_endian": True}, OrderedDict(w=evil)]
    parts[place] = evil
    content = b"".join(pickle.dumps(part, protocol=2) for part in parts)
    with pytest.raises(pickle.UnpicklingError, match="is not allowed"):
        parse_tensors(content)
    file = tmp_path / "evil.pth"
    file.write_bytes(content)
    with pytest.raises(BackboneError, match=r"evil\.pth: not a readable file of tensors .*not allowed"):
        read_tensors(file, hashlib.sha256(content).hexdigest())
    assert [path.name for path in tmp_path.iterdir()] == ["evil.pth"]


def test_a_file_with_another_digest_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(content: bytes) -> None:
        pytest.fail("parsed")

    monkeypatch.setattr("trainables.modalities.image.efficientnet_lite0.torch_file.parse_tensors", parse)
    file = tmp_path / "wéights.pth"
    file.write_bytes(b"another file")
    with pytest.raises(BackboneError, match=r"expected a file with SHA-256 0000.*, received .*not read"):
        read_tensors(file, "0" * 64)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"none\.pth: No such file"):
        read_tensors(tmp_path / "none.pth", "0" * 64)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", pickle.dumps(3, protocol=2) * 3], ids=repr)
def test_files_of_another_format_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(BackboneError, match="not a readable file of tensors"):
        read_tensors(tmp_path / "a.pth", hashlib.sha256(content).hexdigest())


@pytest.mark.usefixtures("torch_names")
def test_big_endian_files_are_refused() -> None:
    with pytest.raises(ValueError, match="little-endian"):
        parse_tensors(written(OrderedDict(), [], little_endian=False))


@pytest.fixture(scope="module")
def sound() -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        name_as_torch(patch)
        return one(np.arange(6, dtype="<f4"), 0, (2, 3), (3, 1))


@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1), damage=st.binary(min_size=1, max_size=4), cut=st.booleans())
def test_damaged_files_give_tensors_or_an_error(place: float, damage: bytes, cut: bool, sound: bytes) -> None:
    start = int(place * (len(sound) - 1))
    content = sound[:start] if cut else sound[:start] + damage + sound[start + len(damage) :]
    try:
        found = parse_tensors(content)
    except Exception:  # noqa: BLE001
        return
    assert all(isinstance(value, np.ndarray) for value in found.values())
