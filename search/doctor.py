"""Looks at what a search needs before anything is spent; each check says what is wrong and what to do."""

from __future__ import annotations

import platform
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from search.phrases import plural

GIGABYTE = 2**30
SPARE_DISK = 2 * GIGABYTE
SPARE_MEMORY = 2 * GIGABYTE
TIMEOUT = 5.0
"""Seconds that a server may take to answer."""

Grade = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    grade: Grade
    words: str


def examine(storage: Path, tracking_uri: str | None, address: str | None) -> Iterator[Finding]:
    """All findings, the quick checks first; each is handed out as soon as it is known."""
    checks: list[Callable[[], Finding]] = [
        check_packages,
        lambda: check_storage(storage),
        check_memory,
        lambda: check_tracking(tracking_uri),
        check_gpu,
        lambda: check_ray(address),
    ]
    for check in checks:
        yield check()


def check_packages() -> Finding:
    """Whether every dependency is installed in a version that this one was made for."""
    from packaging.requirements import Requirement

    wrong = []
    for text in metadata.requires("unfreeze") or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    if wrong:
        return Finding(
            "packages", "failed", f"{'; '.join(wrong)}: install unfreeze again in a new environment"
        )
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("ray", "optuna", "mlflow", "tensorflow")
    )
    return Finding("packages", "ok", f"Python {platform.python_version()}, {versions}")


def check_storage(storage: Path) -> Finding:
    """Whether the folder of the searches can be written, and has room."""
    folder = next(parent for parent in (storage.absolute(), *storage.absolute().parents) if parent.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".unfreeze-doctor-") as probe:
            probe.write(b"unfreeze")
            probe.flush()
    except OSError as error:
        words = f"{storage} can't be written ({error.strerror}): name another folder with --storage DIR"
        return Finding("storage", "failed", words)
    free = shutil.disk_usage(folder).free
    words = f"{storage.absolute()}, {free / GIGABYTE:.1f} GB free"
    if free < SPARE_DISK:
        return Finding("storage", "warning", f"{words}: checkpoints and cached activations may need more")
    return Finding("storage", "ok", words)


def check_memory() -> Finding:
    """Whether there is memory for one TensorFlow process."""
    import psutil

    free, cores = psutil.virtual_memory().available, psutil.cpu_count() or 1
    words = f"{free / GIGABYTE:.1f} GB available, {plural(cores, 'core')}"
    if free < SPARE_MEMORY:
        return Finding(
            "memory", "warning", f"{words}: a search needs about 2 GB and more for large backbones"
        )
    return Finding("memory", "ok", words)


def check_tracking(uri: str | None) -> Finding:
    """Whether the tracking server answers; without one, runs go into a file of the storage."""
    if uri is None:
        return Finding("tracking", "ok", "a SQLite file in the storage")
    if uri.startswith(("http://", "https://")):
        return _ask(uri.rstrip("/"))
    from search.mlflow_client import connect
    from trainables.errors import TrackingError

    try:
        connect(uri).search_experiments(max_results=1)
    except TrackingError as error:
        return Finding("tracking", "failed", str(error))
    return Finding("tracking", "ok", uri)


def check_gpu() -> Finding:
    """Whether TensorFlow sees the GPUs that the driver sees."""
    import tensorflow as tf

    seen = len(tf.config.list_physical_devices("GPU"))
    if seen:
        return Finding("gpu", "ok", f"TensorFlow sees {plural(seen, 'GPU')}")
    if shutil.which("nvidia-smi"):
        return Finding(
            "gpu", "warning", "there is a GPU driver but TensorFlow sees no GPU: install tensorflow[and-cuda]"
        )
    return Finding("gpu", "ok", "none: trials run on the CPU")


def check_ray(address: str | None) -> Finding:
    """Whether Ray starts here, or answers at ``address``."""
    from search.config import SearchConfig
    from search.session import connect
    from trainables.errors import ClusterError

    try:
        with connect(SearchConfig(address=address)) as session:
            return Finding(
                "ray", "ok", f"{address or 'this machine'}: {plural(session.capacity, 'trial')} at once"
            )
    except ClusterError as error:
        return Finding("ray", "failed", str(error))


def _ask(uri: str) -> Finding:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=TIMEOUT) as answer:
            return Finding(
                "tracking", "ok", f"{uri} answers: {answer.read(80).decode(errors='replace').strip()}"
            )
    except urllib.error.HTTPError as error:
        hint = (
            ": is this host on its --allowed-hosts list, and the login right?"
            if error.code in (401, 403)
            else ""
        )
        return Finding("tracking", "failed", f"{uri} answers {error.code} {error.reason}{hint}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Finding(
            "tracking", "failed", f"{uri} does not answer ({reason}): is it running, and reachable from here?"
        )
