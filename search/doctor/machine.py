"""Checks the machine that the doctor runs on: packages, memory, GPUs, and whether Ray starts."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata

from search.doctor.demand import check_request
from search.doctor.node_probe import COUNT_GPUS_PROGRAM, SLOW_START, count_driver_gpus
from search.doctor.targets import CheckTargets
from search.records.finding import Finding, failed, ok, warning
from search.records.formatting import plural

GIGABYTE = 2**30
MIN_FREE_MEMORY = 2 * GIGABYTE
"""One process with TensorFlow and a small backbone takes about this much."""

TENSORFLOW_SECONDS = float(os.environ.get("UNFREEZE_DOCTOR_PATIENCE", 45))
"""Time for TensorFlow to start and look for GPUs. A machine that is busy with other work may need more."""

INSTALL_CUDA = 'pip install "tensorflow[and-cuda]"'


def check_ray(targets: CheckTargets) -> Finding:
    """Check that Ray starts on this machine and could run a trial."""
    from search.doctor.joining import ray_connection
    from trainables.errors import ClusterError

    try:
        with ray_connection(None):
            import ray

            found = check_request(targets, [n["Resources"] for n in ray.nodes() if n["Alive"]], {})
            return Finding("ray", found.grade, f"this machine: {found.words}")
    except ClusterError as error:
        return failed("ray", str(error))


def check_packages() -> Finding:
    """Check that every dependency is installed in a version that this version of unfreeze allows."""
    from packaging.requirements import Requirement

    wrong = []
    for text in metadata.requires("unfreeze") or ():
        requirement = Requirement(text)
        # Without an extra, markers of optional dependencies are false.
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
        return failed("packages", f"{'; '.join(wrong)}: install unfreeze again in a new environment")
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("ray", "optuna", "mlflow", "tensorflow")
    )
    return ok("packages", f"Python {platform.python_version()}, {versions}")


def check_memory() -> Finding:
    """Check that there is memory for one TensorFlow process."""
    import psutil

    free, cores = psutil.virtual_memory().available, psutil.cpu_count() or 1
    words = f"{free / GIGABYTE:.1f} GB available, {plural(cores, 'core')}"
    if free < MIN_FREE_MEMORY:
        return warning("memory", f"{words}: a search needs about 2 GB and more for large backbones")
    return ok("memory", words)


def check_gpu() -> Finding:
    """Check that TensorFlow sees the GPUs that the NVIDIA driver lists.

    TensorFlow runs in a process of its own, so that this one neither loads it nor takes memory of a GPU.
    """
    present = count_driver_gpus()
    seen, problem = _count_tensorflow_gpus()
    if SLOW_START in problem:
        return warning("gpu", f"TensorFlow {problem}: is this machine busy with other work?")
    if problem:
        return failed(
            "gpu", f"TensorFlow can't be imported: {problem}: install unfreeze in a new environment"
        )
    return gpu_finding("this machine", present, seen, os.environ.get("CUDA_VISIBLE_DEVICES"))


def gpu_finding(where: str, present: int, seen: int, visible: str | None) -> Finding:
    """Compare the GPUs that the driver lists with those that TensorFlow sees.

    Args:
        where: ``this machine`` or ``node NAME``.
        present: GPUs that the NVIDIA driver or Ray knows.
        seen: GPUs that TensorFlow sees.
        visible: value of the environment variable CUDA_VISIBLE_DEVICES there; None if it is not set.
    """
    if seen >= present:
        return ok("gpu", f"TensorFlow sees {plural(seen, 'GPU')}" if seen else "none: trials run on the CPU")
    words = f"{where} has {plural(present, 'GPU')} but TensorFlow sees {seen or 'none'}"
    if visible is not None:
        return failed("gpu", f"{words}: CUDA_VISIBLE_DEVICES={visible!r} hides them: unset it")
    return failed(
        "gpu", f"{words}: its CUDA libraries are missing or too old for the driver: {INSTALL_CUDA}, or "
        "--gpus-per-trial 0"
    )  # fmt: skip


def _count_tensorflow_gpus() -> tuple[int, str]:
    """Return the number of GPUs that TensorFlow sees, and what went wrong (empty if nothing did)."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        asked = subprocess.run(
            [sys.executable, "-c", COUNT_GPUS_PROGRAM],
            env=environment,
            capture_output=True,
            text=True,
            timeout=TENSORFLOW_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 0, f"{SLOW_START} {TENSORFLOW_SECONDS:.0f} s"
    if asked.returncode:
        return 0, (asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"])[-1]
    # Libraries may print lines of their own before the number.
    return int(asked.stdout.split()[-1]), ""
