"""Finds the font files from which the printed characters are rendered."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from trainables.errors import DataError

SUFFIXES = (".ttf", ".otf")


def system_folders() -> tuple[Path, ...]:
    """Return the existing font folders of Linux, macOS and Windows, and that of matplotlib."""
    home = Path.home()
    folders = [
        Path("/usr/share/fonts"),
        Path("/usr/local/share/fonts"),
        home / ".local/share/fonts",
        home / ".fonts",
        Path("/System/Library/Fonts"),
        Path("/Library/Fonts"),
        home / "Library/Fonts",
        Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts",
    ]
    folders += [Path(entry) / "matplotlib/mpl-data/fonts/ttf" for entry in sys.path if entry]
    return tuple(folder for folder in folders if folder.is_dir())


def find_fonts(places: Iterable[Path] | None = None) -> tuple[Path, ...]:
    """Find the font files (``.ttf``, ``.otf``) in ``places``, each a file or a folder that is searched recursively.

    ``None`` means :func:`system_folders`. A font with two paths (a link, or a copy in another folder under the same
    file name) is returned once. The result is sorted by file name, so that machines with the same fonts in other
    folders agree on the order.

    Raises:
        DataError: a place does not exist, or contains no font file.
    """
    searched = tuple(system_folders() if places is None else places)
    found: dict[str, Path] = {}
    for place in searched:
        for path in _fonts_in(place):
            found.setdefault(path.resolve().name, path.resolve())
    if not found:
        raise DataError(
            f"fonts: expected at least one {' or '.join(SUFFIXES)} file, found none in "
            f"{_listed(searched)}; install a font package or name a folder of fonts"
        )
    return tuple(found[name] for name in sorted(found))


def _fonts_in(place: Path) -> list[Path]:
    if place.is_file():
        return [place] if place.suffix.lower() in SUFFIXES else []
    if not place.is_dir():
        raise DataError(
            f"fonts: expected a font file or a folder of fonts, got {str(place)!r}, which does not exist"
        )
    return sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _listed(places: Sequence[Path]) -> str:
    return ", ".join(str(place) for place in places) or "any known font folder"
