"""Mount file systems that tests can fill, or that become read-only while files on them are open."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

FILLER = "filler"


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a memory disk of ``megabytes`` at ``folder``."""
    folder.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        _unmount(folder)


def fill(disk: Path) -> None:
    """Fill the disk to the last byte."""
    with (disk / FILLER).open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


def empty(disk: Path) -> None:
    """Free the space that :func:`fill` took."""
    (disk / FILLER).unlink()


class FailingDisk:
    """An ext4 file system in a file, which the kernel makes read-only when it detects an error."""

    def __init__(self, folder: Path, megabytes: int = 16) -> None:
        self.image, self.folder = folder / "disk.img", folder / "disk ü"
        self.folder.mkdir(parents=True)
        with self.image.open("wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run(["mkfs.ext4", "-q", str(self.image)], check=True, capture_output=True)
        self.mount()

    def mount(self) -> None:
        """Mount the disk."""
        _mount("-o", "loop,errors=remount-ro", str(self.image), str(self.folder))

    def fail(self) -> None:
        """Make the kernel detect an error, as on a failing disk."""
        device = self.folder.stat().st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        trigger = Path("/sys/fs/ext4") / name / "trigger_fs_error"
        if not trigger.exists():
            pytest.skip("this kernel cannot simulate an error on an ext4 disk")
        trigger.write_text("a test")

    def repair(self) -> None:
        """Unmount the disk, which fails if a file on it is open, then check and mount it again."""
        subprocess.run(["umount", str(self.folder)], check=True, capture_output=True)
        subprocess.run(["e2fsck", "-fy", str(self.image)], check=False, capture_output=True)
        self.mount()

    def close(self) -> None:
        """Unmount the disk."""
        _unmount(self.folder)


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a disk, which needs root and support by the kernel: {done.stderr.strip()}")


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)
    if os.path.ismount(folder):
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=True)
