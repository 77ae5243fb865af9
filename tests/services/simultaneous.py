"""Lets several processes do something at the same moment."""

from __future__ import annotations

import subprocess


def at_once(*processes: subprocess.Popen[str]) -> list[tuple[int, str]]:
    """Let all of them go on at the same moment; return exit code and output of each, sorted.

    Each process prints ``ready`` and then waits for a line; it needs pipes for both. Its imports take seconds: without
    waiting for all, the first one would be done before the last one begins.
    """
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    found = []
    for process in processes:
        out, _ = process.communicate(timeout=300)
        found.append((process.returncode, out.strip()))
    return sorted(found)
