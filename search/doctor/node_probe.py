"""Inspects one node of a cluster from inside: clock, versions, storage, cache and GPUs.

Ray sends this module to the nodes by value, because it must work on nodes where unfreeze is missing or has another
version. It therefore imports only the standard library.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from importlib import metadata, util
from pathlib import Path

COUNT_GPUS_PROGRAM = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"
"""A program that prints how many GPUs TensorFlow sees."""

SLOW_START = "did not start within"
"""Part of the message about a TensorFlow that takes too long to start."""

SHARED_FOLDER_SECONDS = 3.0
"""Time until a shared folder shows a file that another machine wrote; NFS caches directories for seconds."""


class NodeProbe:
    """An actor that inspects the node on which it runs."""

    def clock(self) -> float:
        """This node's time in seconds since 1970."""
        return time.time()

    def versions(self, packages: tuple[str, ...]) -> dict[str, str]:
        """Versions of ``python`` and ``packages``, and as ``code`` a digest of unfreeze's files; empty if missing."""
        return {
            "python": ".".join(map(str, sys.version_info[:3])),
            **{name: version_of(name) for name in packages},
            "code": digest_of_code(),
        }

    def storage(self, folder: str, content: str, name: str) -> tuple[str, str]:
        """Return the problems of reading the driver's file in ``folder`` and of writing the file ``name`` there."""
        return read_problem(folder, content), write_problem(folder, content, name)

    def cache(self, wanted: str | None) -> tuple[str, int, str]:
        """Folder of the cache (empty if it is off), free bytes there, and the problem of writing to it."""
        # The rules of trainables.activations.location.default_directory, which can't be imported here.
        named = wanted or os.environ.get("UNFREEZE_CACHE", "").strip() or "~/.cache/unfreeze/activations"
        if named.lower() == "off":
            return "", 0, ""
        folder = Path(named).expanduser().absolute()
        existing = next(p for p in (folder, *folder.parents) if p.is_dir())
        wrong = "" if os.access(existing, os.W_OK) else "no permission to write"
        return str(folder), shutil.disk_usage(existing).free, wrong

    def gpus(self, expected: int, seconds: float) -> tuple[int, int, str | None, str]:
        """Count the GPUs of this node.

        TensorFlow is started only on nodes that should have GPUs.

        Args:
            expected: GPUs that Ray knows here.
            seconds: time for TensorFlow to start.

        Returns:
            GPUs that the NVIDIA driver or Ray knows, GPUs that TensorFlow sees, the value of CUDA_VISIBLE_DEVICES, and
            what went wrong (empty if nothing did).
        """
        present = max(expected, count_driver_gpus())
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if not present:
            return 0, 0, visible, ""
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-c", COUNT_GPUS_PROGRAM]
        try:
            asked = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            return present, 0, visible, f"TensorFlow {SLOW_START} {seconds:.0f} s"
        if asked.returncode:
            return present, 0, visible, (asked.stderr.strip().splitlines() or ["no message"])[-1]
        # Libraries may print lines of their own before the number.
        return present, int(asked.stdout.split()[-1]), visible, ""


def version_of(package: str) -> str:
    """Return the installed version of ``package``; empty if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def digest_of_code() -> str:
    """Return a digest of all Python files of the packages ``search`` and ``trainables``; empty if one is missing."""
    digest = hashlib.sha256()
    for name in ("search", "trainables"):
        spec = util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            return ""
        folder = Path(spec.submodule_search_locations[0])
        for file in sorted(folder.rglob("*.py")):
            digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def count_driver_gpus() -> int:
    """Return the number of GPUs that ``nvidia-smi`` lists; 0 without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def read_problem(folder: str, content: str) -> str:
    """Why the driver's file in ``folder`` can't be read from this node; empty if it can."""
    file, parent = Path(folder) / "driver", Path(folder).parent
    end = time.monotonic() + SHARED_FOLDER_SECONDS
    while True:
        try:
            known = file.read_text()
            return "" if known == content else "another file is there"
        except FileNotFoundError:
            if time.monotonic() > end:
                return "has a folder of its own there" if parent.is_dir() else "has no such folder"
            time.sleep(0.2)
        except OSError as error:
            return f"can't read what is there: {error.strerror}"


def write_problem(folder: str, content: str, name: str) -> str:
    """Why no file can be written into ``folder`` from this node; empty if one was."""
    try:
        (Path(folder) / name).write_text(content)
    except OSError as error:
        return error.strerror or str(error)
    return ""
