"""Run a small search, promote its model and open ``unfreeze ui`` on it, for tests of MLflow's pages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mlflow_service import free_port
from search_command import SearchCommand

from search.records.record import SearchRecord

NAME = "digits"
CONFIGURATIONS = (
    {"unfreeze_depth": 1, "learning_rate": 0.003, "head_units": 0, "augmentation_strength": 0.0},
    {"unfreeze_depth": 2, "learning_rate": 0.004, "head_units": 64, "augmentation_strength": 0.0},
    {"unfreeze_depth": 0, "learning_rate": 0.01, "head_units": 0, "augmentation_strength": 0.0},
    {"unfreeze_depth": 2, "learning_rate": 0.0002, "head_units": 0, "augmentation_strength": 0.0},
    {"unfreeze_depth": 4, "learning_rate": 0.002, "head_units": 64, "augmentation_strength": 0.0},
    {"unfreeze_depth": 1, "learning_rate": 0.0001, "head_units": 64, "augmentation_strength": 0.0},
    {"unfreeze_depth": 0, "learning_rate": 0.002, "head_units": 128, "augmentation_strength": 0.0},
    {"unfreeze_depth": 3, "learning_rate": 0.008, "head_units": 0, "augmentation_strength": 0.0},
)
"""Good and bad configurations, so that some trials are pruned."""

MODEL = "unfreeze-digits"


@dataclass
class FinishedSearch:
    """The search, its storage and the UI. ``printed`` is the output of ``unfreeze ui`` without its last line."""

    folder: Path
    search: SearchCommand
    address: str = ""
    printed: str = ""
    process: subprocess.Popen[str] | None = None

    @property
    def storage(self) -> Path:
        return self.folder / "runs"

    @property
    def record(self) -> SearchRecord:
        record = self.search.record()
        assert record is not None
        return record

    def page(self, words: str) -> str:
        """The address in the line of ``unfreeze ui`` that contains ``words``."""
        (line,) = [line for line in self.printed.splitlines() if words in line]
        return next(word for word in line.split() if word.startswith("http"))

    def open(self) -> None:
        """Start ``unfreeze ui`` and wait until it has printed its addresses."""
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        line = [*_unfreeze("ui"), "--storage", str(self.storage), "--port", str(port)]
        self.process = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=self._environment()
        )
        assert self.process.stdout is not None
        for said in self.process.stdout:
            self.printed += said
            if "models:" in said:
                return
        raise AssertionError(f"unfreeze ui ended: {self.printed}")

    def interrupt(self) -> int:
        """Send Ctrl-C and return the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def end(self) -> None:
        """Stop all processes."""
        if self.process is not None and self.process.poll() is None:
            self.interrupt()
        self.search.kill()

    def _environment(self) -> dict[str, str]:
        from search_command import MARK

        return {**os.environ, MARK: str(self.folder)}


def make_finished_search(folder: Path) -> FinishedSearch:
    """Run the search, promote its model and open the UI."""
    folder.mkdir(parents=True, exist_ok=True)
    tried_first = folder / "first.jsonl"
    tried_first.write_text("".join(json.dumps(c) + "\n" for c in CONFIGURATIONS))
    asked = (
        "--trials",
        str(len(CONFIGURATIONS)),
        "--epochs",
        "6",
        "--probe",
        "off",
        "--enqueue",
        str(tried_first),
    )
    search = SearchCommand(folder, asked)
    search.run()
    site = FinishedSearch(folder, search)
    promote = [*_unfreeze("promote"), MODEL, "--storage", str(site.storage)]
    subprocess.run(promote, check=True, capture_output=True, timeout=300)
    site.open()
    return site


def _unfreeze(command: str) -> list[str]:
    return [str(Path(sys.executable).parent / "unfreeze"), command]
