"""A head that refuses this machine or does not exist is reported in seconds; Ray takes up to two minutes."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from raylets import LIMIT, Doctor, Raylets

pytestmark = pytest.mark.cluster

BY_ANOTHER = """
import ray, sys
ray.__version__ = "2.59.0"
from search.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"RAY_AUTH_TOKEN": "wrong"}, "the token in RAY_AUTH_TOKEN is not the one of the head"),
        ({"RAY_AUTH_TOKEN": ""}, "asks for a token and there is none in "),
        ({"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE=disabled keeps this machine from sending"),
    ],
)
def test_a_missing_or_different_token_is_reported(
    raylets: Raylets, doctor: Doctor, tmp_path: Path, changed: dict[str, str], words: str
) -> None:
    environment = {**raylets.environment, "HOME": str(tmp_path), **changed}
    findings = doctor("--address", raylets.address, "--storage", str(tmp_path), environment=environment)
    (said,) = [f["words"] for f in findings if f["check"] == "token"]
    assert words in said
    assert "right" not in said


def test_a_search_reports_a_refused_token_before_it_waits(raylets: Raylets, tmp_path: Path) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "search.cli",
            "search",
            "--address",
            raylets.address,
            "--storage",
            str(tmp_path),
        ],
        env={**raylets.environment, "RAY_AUTH_TOKEN": "wrong"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    print(f"{time.monotonic() - began:.1f} s")
    assert done.returncode == 1
    assert "the token in RAY_AUTH_TOKEN is not the one of the head" in done.stderr


def test_an_address_where_nothing_listens_is_reported(doctor: Doctor, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        findings = doctor("--address", f"127.0.0.1:{free.getsockname()[1]}", "--storage", str(tmp_path))
    assert "nothing answers at" in findings[-1]["words"]


def test_a_port_of_another_service_is_reported(doctor: Doctor, tmp_path: Path) -> None:
    with socket.create_server(("", 0)) as other:
        findings = doctor("--address", f"127.0.0.1:{other.getsockname()[1]}", "--storage", str(tmp_path))
    assert "is no head of a Ray cluster" in findings[-1]["words"]


def test_another_version_of_ray_is_reported(raylets: Raylets, tmp_path: Path) -> None:
    arguments = ["doctor", "--address", raylets.address, "--storage", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", BY_ANOTHER, *arguments],
        env=raylets.environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 1
    assert "versions differ: the cluster runs Ray 2.60" in done.stdout, done.stdout + done.stderr
    assert "this machine Ray 2.59.0" in done.stdout
