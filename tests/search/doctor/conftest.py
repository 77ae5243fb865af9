"""Ray clusters of several nodes on this machine, with what is wrong on some of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from raylets import LIMIT, Doctor, Findings, Raylets, can_mount, short_folder


@pytest.fixture(scope="session")
def doctor() -> Doctor:
    """Runs ``unfreeze doctor --json`` in a process of its own, within the time it may take."""

    def asked(*arguments: str, environment: dict[str, str] | None = None) -> Findings:
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "search.cli", "doctor", "--json", *arguments],
            env={**(environment or os.environ), "UNFREEZE_DOCTOR_PATIENCE": str(0.75 * LIMIT)},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr
        print(f"doctor: {time.monotonic() - began:.1f} s", done.stdout, done.stderr)
        findings: Findings = json.loads(done.stdout)
        assert done.returncode == any(f["grade"] == "failed" for f in findings)
        return findings

    return asked


@pytest.fixture(scope="session")
def raylets() -> Iterator[Raylets]:
    """A head that asks for a token; tests add nodes."""
    if not can_mount():
        reason = (
            "this process may make no mount namespaces, in which a node has another disk than its neighbour"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    folder = short_folder()
    made = Raylets(folder)
    try:
        made.start()
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)
