"""Test that Optuna Dashboard shows the trials of a ledger."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow_service import free_port

from search.config.space import core_space
from search.ledger.ledger import Ledger, sqlite_url
from trainables.epoch_metrics import EpochMetrics

SPACE = core_space(4)
COMPLETE, PRUNED = 3, 2


def fill(file: Path) -> Ledger:
    """Four trials: three complete, one pruned after its first epoch."""
    ledger = Ledger(
        sqlite_url(file),
        "plants",
        direction="maximize",
        metric="val_accuracy",
        method="finetune",
        sampler="tpe",
        seed=1,
    )
    for number in range(COMPLETE + 1):
        ledger.start(SPACE.suggest)
        for epoch in range(1, 3):
            ledger.report(number, EpochMetrics(epoch, 0.5 + 0.1 * number + 0.01 * epoch, 0.9, 1.1, 0.25))
        ledger.record_cost(number, {"suffix": 1.5}, {"hits": 3})
        ledger.finish(
            number,
            "complete" if number < COMPLETE else "pruned",
            reason="scheduler" if number == COMPLETE else None,
        )
    return ledger


class Dashboard:
    def __init__(self, url: str) -> None:
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        program = str(Path(sys.executable).parent / "optuna-dashboard")
        self.process = subprocess.Popen(
            [program, "--quiet", "--port", str(port), "--server", "wsgiref", url],
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, path: str, seconds: float = 120) -> Any:
        """Wait for the dashboard, and return the response of its API."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.process.stderr.read() if self.process.stderr else ""
            try:
                with urllib.request.urlopen(self.address + path, timeout=30) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError:
                raise
            except OSError:
                time.sleep(0.3)
        raise TimeoutError(self.address)

    def end(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The study as the dashboard's API returns it, while the ledger is open for writing."""
    file = tmp_path_factory.mktemp("a ledger ü") / "ledger.db"
    ledger = fill(file)
    dashboard = Dashboard(ledger.url)
    try:
        (summary,) = dashboard.ask("/api/studies")["study_summaries"]
        assert summary["study_name"] == "plants"
        yield dashboard.ask(f"/api/studies/{summary['study_id']}?after=0")
    finally:
        dashboard.end()
    assert ledger.start(SPACE.suggest).number == COMPLETE + 1  # it has locked nothing and changed nothing


@pytest.mark.slow
def test_the_dashboard_shows_the_trials_of_a_ledger(study: dict[str, Any]) -> None:
    assert study["directions"] == ["maximize"]
    assert study["objective_names"] == ["val_accuracy"]
    assert [t["state"] for t in study["trials"]] == ["Complete"] * COMPLETE + ["Pruned"]
    for trial in study["trials"]:
        assert {p["name"] for p in trial["params"]} <= set(SPACE.ranges)
        curve = [v["value"] for v in trial["intermediate_values"]]
        assert curve == pytest.approx([0.51 + 0.1 * trial["number"], 0.52 + 0.1 * trial["number"]])
    assert [t["values"] for t in study["trials"][:COMPLETE]] == [
        pytest.approx([0.52 + 0.1 * number]) for number in range(COMPLETE)
    ]


@pytest.mark.slow
def test_the_dashboard_shows_readable_attributes_of_a_trial(study: dict[str, Any]) -> None:
    attributes = {a["key"]: a["value"] for a in study["trials"][COMPLETE]["user_attrs"]}
    assert attributes["method"] == "finetune"
    assert attributes["reason"] == "scheduler"
    assert json.loads(attributes["spent"]) == {"stages": {"suffix": 1.5}, "cost": {"hits": 3}}
    assert json.loads(attributes["curve:0"])[0] == [1, pytest.approx(0.81), 0.9, 1.1, 0.25]
