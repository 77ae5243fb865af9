"""``unfreeze doctor``: is everything in place for a search?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from search.arguments import Parser, add_store, add_verbose

_MARKS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}


def parser() -> Parser:
    """The places that a search would use."""
    made = Parser(
        "doctor", "Check packages, storage, memory, tracking server, GPU and Ray; name what is wrong."
    )
    add_store(made)
    made.add_argument("--address", metavar="RAY", help="Ray cluster to try; this machine if not given")
    made.add_argument("--json", action="store_true", help="print a JSON list")
    add_verbose(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Print each finding as soon as it is known; 1 if any check failed."""
    from search.doctor import examine

    findings = []
    for finding in examine(Path(options.storage), options.tracking_uri, options.address):
        findings.append(finding)
        if not options.json:
            print(f"{_MARKS[finding.grade]}  {finding.check:<9} {finding.words}", flush=True)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False))
    return 1 if any(finding.grade == "failed" for finding in findings) else 0
