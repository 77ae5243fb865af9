"""A storage that version 0.1 wrote, before its modules moved into folders, can be used as if it were new.

``data/make_storage.py`` made it, and its docstring lists what is in it. The tests use the command line and read the
ledger, the checkpoint and MLflow's store as other programs would: with Optuna, NumPy and MLflow's client.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import optuna
import pytest
from storage_archive import unpack

from search.cli import main

ARCHIVE = Path(__file__).parent / "data" / "storage_of_version_0_1.tar.xz"
TRIALS, EPOCHS = 5, 6
SAVED = 1
"""The trial of the search ``interrupted`` whose checkpoint is ahead of the ledger."""

SEARCH = (
    *("--name", "interrupted", "--trials", str(TRIALS), "--scheduler", "none"),
    *("--baseline-trials", "0", "--confirm-seeds", "2", "--keep-best", "0", "--enqueue", "first.jsonl"),
)
"""The command that was interrupted, without ``--epochs 6``: a search keeps the number with which it was begun."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The parent folder of the storage ``runs``, and the working directory."""
    unpack(ARCHIVE, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trials(name: str) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name=name, storage=f"sqlite:///runs/{name}/ledger.db")
    return study.get_trials(deepcopy=False)


def curve(trial: optuna.trial.FrozenTrial) -> list[list[float]]:
    """A row for each epoch: its number, val_accuracy, val_loss, train_loss and epoch_seconds."""
    return list(trial.user_attrs.get("curve:0", []))


def checkpointed() -> list[dict[str, Any]]:
    """The metrics of each epoch that the checkpoint of the interrupted trial holds."""
    with np.load(f"runs/interrupted/checkpoints/{SAVED:05d}/checkpoint.npz", allow_pickle=False) as file:
        return list(json.loads(bytes(file["meta"]))["history"])


def client() -> mlflow.MlflowClient:
    """A client of the storage's MLflow store. Its URI is absolute, because MLflow keeps one store for each URI."""
    uri = f"sqlite:///{Path.cwd()}/runs/mlflow.db"
    # Without a registry URI the client takes MLflow's global one, which other tests may have set.
    return mlflow.MlflowClient(uri, registry_uri=uri)


def version(alias: str) -> str:
    """The version of the registered model that ``alias`` points to."""
    return str(client().get_model_version_by_alias("unfreeze-digits", alias).version)


def test_the_storage_holds_a_finished_search_and_one_that_was_killed_in_the_middle_of_trials(
    folder: Path,
) -> None:
    assert {trial.state.name for trial in trials("finished")} == {"COMPLETE", "PRUNED"}
    interrupted = trials("interrupted")
    assert interrupted[SAVED].state.name == "RUNNING"
    assert len(interrupted) < TRIALS
    assert 0 < len(curve(interrupted[SAVED])) < len(checkpointed()) < EPOCHS


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["finished", "interrupted"])
def test_the_status_is_what_version_0_1_printed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", name, "--storage", "runs", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    known = json.loads(Path(f"expected/status-{name}.json").read_text())
    if known["outcome"] is not None:
        added = {key: found["outcome"].pop(key) for key in found["outcome"].keys() - known["outcome"].keys()}
        # These follow from what version 0.1 stored. All else that later versions measure is unknown.
        assert added.pop("registered_test_accuracy") == known["outcome"]["test_accuracy"]
        confusion = json.loads(Path(f"runs/{name}/best.json").read_text())["outcome"]["confusion"]
        images = [sum(row) for row in confusion]
        assert added.pop("majority_accuracy") == pytest.approx(max(images) / sum(images))
        assert not any(added.values()), added
    assert found == known


@pytest.mark.usefixtures("folder")
def test_the_report_of_the_finished_search_is_written_again() -> None:
    best = json.loads(Path("runs/finished/best.json").read_text())
    accuracy = f"{100 * best['outcome']['test_accuracy']['estimate']:.1f}"
    for form, file in (("html", "report.html"), ("md", "report.md")):
        assert main(["report", "finished", "--storage", "runs", "--format", form]) == 0
        page = Path("runs/finished", file).read_text()
        assert "finished" in page
        assert accuracy in page


@pytest.mark.usefixtures("folder")
def test_the_registered_model_is_promoted(capsys: pytest.CaptureFixture[str]) -> None:
    assert version("challenger") == "1"
    assert main(["promote", "unfreeze-digits", "--storage", "runs"]) == 0
    assert version("champion") == "1"
    capsys.readouterr()
    assert main(["history", "unfreeze-digits", "--storage", "runs", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert str(entry["version"]) == "1"


@pytest.mark.usefixtures("folder")
def test_the_registered_model_predicts_what_it_predicted_in_version_0_1() -> None:
    model, output = "models:/unfreeze-digits@challenger", "predictions.jsonl"
    arguments = ("predict", model, "images", "--storage", "runs", "--all", "--output", output)
    assert main([*arguments]) == 0
    found, known = (
        [json.loads(line) for line in Path(f).read_text().splitlines()]
        for f in (output, f"expected/{output}")
    )
    assert [list(row) for row in found] == [list(row) for row in known]
    for row, before in zip(found, known, strict=True):
        for key, value in before.items():
            assert row[key] == (pytest.approx(value, abs=1e-4) if isinstance(value, float) else value)


@pytest.mark.slow
@pytest.mark.usefixtures("one_ray")
def test_the_interrupted_search_is_resumed_from_its_checkpoint_to_exactly_its_trials(folder: Path) -> None:
    before, history = trials("interrupted"), checkpointed()
    assert main(["search", "--storage", "runs", *SEARCH, "--quiet"]) == 0

    after = trials("interrupted")
    assert [trial.number for trial in after] == list(range(TRIALS))
    assert {trial.state.name for trial in after} == {"COMPLETE"}
    assert max(Counter(json.dumps(trial.params, sort_keys=True) for trial in after).values()) == 1
    for old, new in zip(before, after, strict=False):
        assert new.params == (old.params or old.system_attrs["fixed_params"])
        assert curve(new)[: len(curve(old))] == curve(old)
    assert all([row[0] for row in curve(trial)] == list(range(1, EPOCHS + 1)) for trial in after)

    # The ledger did not have the last epoch of the checkpoint. It now has the seconds that the epoch took in version
    # 0.1; an epoch that was trained again would have taken another time, to the nanosecond.
    seconds = [row[4] for row in curve(after[SAVED])]
    assert seconds[: len(history)] == [epoch["epoch_seconds"] for epoch in history]

    experiments = [experiment.experiment_id for experiment in client().search_experiments()]
    runs = client().search_runs(experiments, "tags.`unfreeze.search` = 'interrupted'", max_results=100)
    assert Counter(run.info.status for run in runs) == Counter(FINISHED=TRIALS + 1)
    numbers = sorted(int(n) for run in runs if (n := run.data.tags.get("unfreeze.trial")) is not None)
    assert numbers == list(range(TRIALS))
    assert version("challenger") == "2"
    assert (folder / "runs" / "interrupted" / "report.html").is_file()
