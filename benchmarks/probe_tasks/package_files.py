"""Read the files of npm and Debian packages with the ordinary clients, each package downloaded once."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path


def npm_files(name: str, version: str, folder: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Return the contents of the ``wanted`` files of an npm package by their path.

    Args:
        name: of the package, without a scope.
        version: exact version.
        folder: where the downloaded package is kept.
        wanted: decides by the path.
    """
    kept = folder / f"{name}-{version}.tgz"
    if not kept.is_file():
        _download(["npm", "pack", "--silent", f"{name}@{version}"], "*.tgz", kept)
    with tarfile.open(kept) as archive:
        return _contents(archive, wanted)


def debian_files(name: str, folder: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Return the contents of the ``wanted`` files of a Debian package, which is not installed, by their path.

    Args:
        name: of the package.
        folder: where the downloaded package is kept.
        wanted: decides by the path, which starts with ``./``.
    """
    kept = folder / f"{name}.deb"
    if not kept.is_file():
        _download(["apt-get", "download", name], "*.deb", kept)
    unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(kept)], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(unpacked.stdout)) as archive:
        return _contents(archive, wanted)


def _download(command: list[str], pattern: str, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    # The clients write into the working directory, under a name that they choose.
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        found = sorted(Path(folder).glob(pattern))
        if done.returncode or len(found) != 1:
            raise RuntimeError(
                f"{' '.join(command)}: expected one package file, received code {done.returncode}:\n"
                f"{done.stderr[-2000:]}"
            )
        found[0].replace(kept)


def _contents(archive: tarfile.TarFile, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    found = {}
    for member in archive:
        if member.isfile() and wanted(member.name):
            file = archive.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
    return found
