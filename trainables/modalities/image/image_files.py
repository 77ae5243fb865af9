"""Finds the image files in folders, and counts the other files there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trainables.data.inputs.source import printable
from trainables.errors import DataError

NON_IMAGE_EXTENSIONS = frozenset(
    f".{word}"
    for group in (
        "txt md rst html htm pdf doc docx log readme license names labels url lnk",
        "csv tsv json jsonl ndjson xml yaml yml toml ini cfg conf lock md5 sha1 sha256",
        "py ipynb m mat npy npz pkl pt h5 hdf5 keras parquet arrow feather db sqlite xls xlsx",
        "zip tar gz tgz bz2 xz 7z rar",
    )
    for word in group.split()
)
"""Extensions of files that accompany datasets and are no images. Every other file is expected to be an image."""

NON_IMAGE_NAMES = frozenset(
    ["thumbs.db", "desktop.ini", "icon\r", "readme", "license", "licence", "checksums", "md5sums", "__macosx"]
)


MAX_FOLDER_DEPTH = 100
"""Largest depth of nested folders inside a class folder."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file that is expected to be an image.

    Attributes:
        path: the file.
        size: in bytes; -1 for a dead link.
        changed: modification time, in nanoseconds; 0 for a dead link.
    """

    path: str
    size: int
    changed: int


@dataclass
class SkippedFiles:
    """Counts the files that are no images by their name."""

    count: int = 0
    kinds: set[str] = field(default_factory=set)

    def add(self, name: str) -> None:
        """Count one more file."""
        self.count += 1
        self.kinds.add(Path(name).suffix.lower() or name)

    @property
    def note(self) -> str:
        """A sentence for the user on what was left out."""
        noun = "file that holds" if self.count == 1 else "files that hold"
        return f"left out {self.count:,} {noun} no image ({', '.join(sorted(self.kinds))})"


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders directly inside ``folder``, sorted by name."""
    entries = _entries(folder)
    return [Path(entry.path) for entry in entries if not _ignored(entry.name) and _is_folder(entry)]


def images_directly_in(folder: Path, skipped: SkippedFiles) -> list[ImageFile]:
    """Return the image files directly inside ``folder``, sorted by name; count the others in ``skipped``."""
    return [file for entry in _entries(folder) if (file := _image(entry, skipped)) is not None]


def images_below(folder: Path, skipped: SkippedFiles) -> Iterator[ImageFile]:
    """Yield the image files below ``folder`` at any depth, sorted by name; count the others in ``skipped``.

    Hidden names are ignored. Links are followed, but never in circles.

    Raises:
        DataError: a folder can't be listed, or the folders are nested too deeply.
    """
    return _below(folder, skipped, frozenset())


def holds_images(folder: Path) -> bool:
    """Whether ``folder`` contains an image file at any depth."""
    return next(images_below(folder, SkippedFiles()), None) is not None


def _below(folder: Path, skipped: SkippedFiles, above: frozenset[tuple[int, int]]) -> Iterator[ImageFile]:
    status = folder.stat()
    # A folder that is its own ancestor, through a link, was listed already.
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    if len(above) > MAX_FOLDER_DEPTH:
        raise DataError(f"{printable(folder)}: expected at most {MAX_FOLDER_DEPTH} folders in each other.")
    for entry in _entries(folder):
        if _is_folder(entry):
            if not _ignored(entry.name):
                yield from _below(Path(entry.path), skipped, above | {identity})
        elif (file := _image(entry, skipped)) is not None:
            yield file


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"can't list {printable(folder)}: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself counts as a dead link
        return False


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.casefold() in NON_IMAGE_NAMES


def _image(entry: os.DirEntry[str], skipped: SkippedFiles) -> ImageFile | None:
    """Return the entry as an image file; None for hidden and skipped files, folders, pipes and devices."""
    dead_link = entry.is_symlink() and not Path(entry.path).exists()
    if entry.name.startswith(".") or not (dead_link or entry.is_file()):
        return None
    if _ignored(entry.name) or Path(entry.name).suffix.lower() in NON_IMAGE_EXTENSIONS:
        skipped.add(entry.name)
        return None
    # A dead link is listed as an image, so that decoding reports it by its name instead of leaving it out
    # silently.
    if dead_link:
        return ImageFile(entry.path, -1, 0)
    status = entry.stat()
    return ImageFile(entry.path, status.st_size, status.st_mtime_ns)
