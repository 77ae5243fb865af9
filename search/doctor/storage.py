"""Checks the storage: whether it can be written, has room, and is one folder for all nodes."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from search.doctor.machine import GIGABYTE
from search.records.finding import Finding, failed, ok, warning
from search.records.formatting import plural
from trainables.activations.location import MAX_DISK_SHARE, default_directory

MIN_FREE_DISK = 2 * GIGABYTE
MIN_FREE_CACHE = 2 * GIGABYTE


def check_storage(storage: Path) -> Finding:
    """Check that the folder of the searches can be written and has room."""
    folder = nearest_existing(storage)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".unfreeze-doctor-") as probe:
            probe.write(b"unfreeze")
            probe.flush()
    except OSError as error:
        return failed(
            "storage",
            f"{storage} can't be written ({error.strerror}): name another folder with --storage DIR",
        )
    free = shutil.disk_usage(folder).free
    words = f"{storage.absolute()}, {free / GIGABYTE:.1f} GB free"
    if free < MIN_FREE_DISK:
        return warning("storage", f"{words}: checkpoints and models may need more")
    return ok("storage", words)


def check_cache(wanted: str | None) -> Finding:
    """Check that this machine's disk has room for kept activations.

    Args:
        wanted: as in ``unfreeze search --cache``.
    """
    folder = default_directory(wanted=wanted)
    if folder is None:
        return ok("cache", "off: nothing is kept on disk")
    return cache_finding("", str(folder), shutil.disk_usage(nearest_existing(folder)).free, "")


def cache_finding(where: str, folder: str, free: int, wrong: str) -> Finding:
    """Judge the cache of one machine.

    Args:
        where: prefix of the message: empty for this machine, else ``node NAME: ``.
        folder: of the cache; empty if it is off.
        free: bytes on its disk.
        wrong: why it can't be written; empty if it can.
    """
    if not folder:
        return ok("cache", f"{where}off: nothing is kept on disk")
    if wrong:
        return warning("cache", f"{where}{folder}: {wrong}: activations are computed again and again")
    words = f"{where}{folder}, {free / GIGABYTE:.1f} GB free"
    if free < MIN_FREE_CACHE:
        return warning(
            "cache", f"{words}, too little for the cache, which may take {MAX_DISK_SHARE:.0%} of that: trials will "
            "compute activations again and again. Name a larger disk with UNFREEZE_CACHE=DIR there, or give "
            "--cache-budget"
        )  # fmt: skip
    return ok("cache", words)


def nearest_existing(path: Path) -> Path:
    """``path`` itself, or the nearest folder above it that exists."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())


@dataclass(frozen=True)
class SharedProbe:
    """A folder in the storage with a file of the driver. Each node reads that file and writes one of its own.

    Attributes:
        storage: folder of the searches.
        folder: of the probe.
        content: of the driver's file; each node writes the same into its own.
    """

    storage: Path
    folder: Path
    content: str

    def findings(self, wrong: Mapping[str, tuple[str, str]], files: Mapping[str, str]) -> Iterator[Finding]:
        """Judge what the nodes have read and written.

        Args:
            wrong: why each node, by label, can't read and can't write; empty where it can.
            files: names of the files that the nodes were to write, by label.
        """
        separate = {label: read for label, (read, _) in wrong.items() if read}
        read_only = {label: write for label, (read, write) in wrong.items() if write and not read}
        for label in wrong:
            # A node with a folder of its own at the same path reads and writes without any error.
            if label not in separate and label not in read_only and not self._file_arrived(files[label]):
                separate[label] = "writes where this machine can't see it"
        if separate:
            yield failed("storage", self._not_shared(separate))
        if read_only:
            reasons = "; ".join(f"{label}: {why}" for label, why in sorted(read_only.items()))
            yield failed(
                "storage",
                f"{self.storage} can't be written from {reasons}. Trials there cannot write checkpoints. Mount it "
                "writable and give the user of the Ray processes write permission",
            )
        if not separate and not read_only:
            yield ok("storage", f"{self.storage} is one folder for {plural(len(wrong), 'node')}")

    def _not_shared(self, nodes: Mapping[str, str]) -> str:
        reasons = "; ".join(f"{label} {why}" for label, why in sorted(nodes.items()))
        return (
            f"{self.storage} is not shared: {reasons}. Mount one folder at the same path on every node (NFS, EFS, "
            "Filestore, …) and name it with --storage"
        )

    def _file_arrived(self, name: str) -> bool:
        try:
            return (self.folder / name).read_text() == self.content
        except OSError:
            return False


@contextmanager
def shared_probe(storage: Path) -> Iterator[SharedProbe]:
    """Create a probe in the storage, or in the nearest existing folder above it, and remove it afterwards.

    Raises:
        OSError: the folder can't be written.
    """
    content = secrets.token_hex(16)
    folder = Path(tempfile.mkdtemp(dir=nearest_existing(storage), prefix=".unfreeze-doctor-"))
    try:
        folder.chmod(0o777)  # nodes may run as another user
        (folder / "driver").write_text(content)
        yield SharedProbe(storage.absolute(), folder, content)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
