"""``unfreeze doctor``: check what a search needs, and name what is wrong."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from search.config.argument_parser import Parser, add_storage_options, add_verbose_option
from trainables.errors import UsageError

_MARKS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}
_DESCRIPTION = """\
Check what a search needs and name what is wrong, before a search is started or when one hangs.

  unfreeze doctor                            this machine: packages, storage, memory, GPU, Ray
  unfreeze doctor --cluster cluster.yaml     before `ray up`: the file, its keys, the machines' SSH ports
  unfreeze doctor --address auto --storage /shared/runs --gpus-per-trial 0.25
                                             a running cluster: every node, what trials wait for"""


def parser() -> Parser:
    """Return the parser: what a search would use, and what a trial would reserve."""
    made = Parser("doctor", _DESCRIPTION)
    add_storage_options(made)
    made.add_argument("--address", metavar="RAY", help="Ray cluster to check (default: this machine).")
    made.add_argument("--cluster", metavar="FILE", help="Cluster file to check, as `ray up` takes it.")
    made.add_argument(
        "--cache", metavar="DIR|off", help="Folder on every machine for the activations of frozen blocks."
    )
    made.add_argument(
        "--cpus-per-trial", metavar="X", default="1", help="CPU cores that a trial reserves (default: 1)."
    )
    made.add_argument(
        "--gpus-per-trial", metavar="X", default="0", help="GPUs that a trial reserves (default: 0)."
    )
    made.add_argument("--json", action="store_true", help="Print a JSON list.")
    add_verbose_option(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Print each finding as soon as it is known. The exit code is 1 if a check failed."""
    from search.doctor.checks import run_checks
    from search.doctor.targets import CheckTargets

    targets = CheckTargets(
        Path(options.storage),
        options.tracking_uri,
        options.address,
        Path(options.cluster) if options.cluster else None,
        options.cache,
        _amount("--cpus-per-trial", options.cpus_per_trial),
        _amount("--gpus-per-trial", options.gpus_per_trial),
    )
    findings = []
    for finding in run_checks(targets):
        findings.append(finding)
        if not options.json:
            # Some checks take long; flushing shows the findings before them also in a pipe.
            print(f"{_MARKS[finding.grade]}  {finding.check:<9} {finding.words}", flush=True)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False))
    return 1 if any(finding.grade == "failed" for finding in findings) else 0


def _amount(option: str, text: str) -> float:
    """Return a number of cores or GPUs."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"{option}: expected a number from 0, received {text!r}")
    return value
