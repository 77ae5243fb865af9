"""Makes the storage that ``test_storage_of_version_0_1.py`` resumes, reports, promotes and predicts with.

The file ``storage_of_version_0_1.tar.xz`` was written by the version before the modules moved into folders. Do not
make it again with a newer version: its worth is that an older one wrote it. To make a storage of another version, run
this script with the interpreter of an environment in which that version is installed::

    git worktree add /tmp/before REVISION
    python3 -m venv /tmp/before/.venv
    /tmp/before/.venv/bin/pip install -c /tmp/before/constraints.txt '/tmp/before[dev]'
    /tmp/before/.venv/bin/python tests/search/study/data/make_storage.py storage_of_version_X_Y.tar.xz

It takes about a minute on two cores, and uses nothing but the command line, SQLite and the files of a storage.

The archive holds

- ``runs/``, a storage with MLflow's SQLite store and two searches on the built-in digits:
  ``finished`` with its ledger, a baseline, its report data and the registered model ``unfreeze-digits`` version 1 (the
  challenger); and ``interrupted``, whose driver was ended by ``kill -9`` while it ran trials. The ledger of
  ``interrupted`` holds :data:`SAVED` as running, with a checkpoint that is at least one epoch ahead of the ledger;
- ``first.jsonl``, the configurations that both searches try first;
- ``images/``, some digits as PNG files;
- ``expected/``, what that version answered: the status of both searches as JSON, and its predictions for ``images/``.

What any version rebuilds is left out to keep the file small: prepared data, reports, plots, logs, copies of the ledger
and the winner's models, of which the registered one is in MLflow's store.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).parents[3] / "services"))
from storage_archive import pack

SAVED = 1
"""The running trial that has a checkpoint when the driver is killed. It trains a block of the backbone, so that the
checkpoint holds a suffix, a head and their optimizers."""

FIRST = (
    {"unfreeze_depth": 0, "learning_rate": 0.01, "head_units": 0, "augmentation_strength": 0.0},
    {"unfreeze_depth": 1, "learning_rate": 0.003, "head_units": 0, "augmentation_strength": 0.25},
    {"unfreeze_depth": 0, "learning_rate": 0.003, "head_units": 0, "augmentation_strength": 0.0},
    {"unfreeze_depth": 0, "learning_rate": 0.001, "head_units": 0, "augmentation_strength": 0.0},
)
"""Few trained blocks, because checkpoints can't be compressed; both searches let the sampler propose the last trial."""

FINISHED = (
    *(
        "--name",
        "finished",
        "--trials",
        "5",
        "--epochs",
        "4",
        "--baseline-trials",
        "2",
        "--confirm-seeds",
        "3",
    ),
)
INTERRUPTED = (
    *("--name", "interrupted", "--trials", "5", "--epochs", "6", "--scheduler", "none"),
    *("--baseline-trials", "0", "--confirm-seeds", "2"),
)
BOTH = ("--storage", "runs", "--keep-best", "0", "--enqueue", "first.jsonl")
REBUILT = (
    "runs/.data",
    "runs/*/logs",
    "runs/*/plots",
    "runs/*/report.*",
    "runs/*/.lock*",
    "runs/*/*.last-good.db",
    "runs/*/baseline/*.last-good.db",
    "runs/*/winner/*.keras",
    "runs/*/checkpoints/*/*-before.npz",
    "runs/mlartifacts/*/artifacts/report.*",
    "runs/mlartifacts/*/artifacts/plots",
    "runs/mlartifacts/*/artifacts/trials.parquet",
)
"""What is left out of the archive."""

IMAGES = 12


def main(archive: Path) -> None:
    """Run both searches in a temporary folder, and pack what they leave."""
    with tempfile.TemporaryDirectory(prefix="unfreeze-storage-") as place:
        folder = Path(place)
        os.environ["UNFREEZE_CACHE"] = "off"
        (folder / "first.jsonl").write_text("".join(json.dumps(params) + "\n" for params in FIRST))
        _save_images(folder / "images")
        _unfreeze(folder, "search", *BOTH, *FINISHED)
        _interrupt(folder)
        _save_answers(folder)
        for pattern in REBUILT:
            for path in folder.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        pack(folder, archive)
    print(f"{archive}: {archive.stat().st_size / 1e6:.2f} MB")


def _unfreeze(folder: Path, *arguments: str) -> str:
    line = [str(Path(sys.executable).with_name("unfreeze")), *arguments]
    return subprocess.run(line, cwd=folder, check=True, text=True, stdout=subprocess.PIPE).stdout


def _interrupt(folder: Path) -> None:
    """Kill the driver of ``interrupted`` when the checkpoint of ``SAVED`` is ahead of the ledger.

    The driver is stopped first (SIGSTOP): the engine, another process, then ends its epoch and writes the checkpoint,
    and nobody takes the epoch into the ledger. Where the driver was stopped between two epochs it is woken again.
    """
    line = [str(Path(sys.executable).with_name("unfreeze")), "search", *BOTH, *INTERRUPTED]
    with subprocess.Popen(line, cwd=folder) as driver:
        ledger = folder / "runs" / "interrupted" / "ledger.db"
        checkpoint = folder / "runs" / "interrupted" / "checkpoints" / f"{SAVED:05d}" / "checkpoint.npz"
        while True:
            while reported(ledger, SAVED) < 2:
                if driver.poll() is not None:
                    raise SystemExit("the search ended before it could be interrupted")
                time.sleep(0.02)
            driver.send_signal(signal.SIGSTOP)
            time.sleep(3)
            if saved(checkpoint) > reported(ledger, SAVED):
                break
            driver.send_signal(signal.SIGCONT)
            time.sleep(0.1)
        driver.kill()
    time.sleep(10)  # Ray's processes end by themselves when their driver is gone


def reported(ledger: Path, number: int) -> int:
    """How many epochs of trial ``number`` are in the ledger; 0 before it exists."""
    query = (
        "SELECT value_json FROM trial_user_attributes JOIN trials USING (trial_id) "
        "WHERE trials.number = ? AND key LIKE 'curve%'"
    )
    try:
        with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as database:
            return sum(len(json.loads(row[0])) for row in database.execute(query, (number,)))
    except sqlite3.OperationalError:
        return 0


def saved(checkpoint: Path) -> int:
    """How many epochs a checkpoint holds; 0 before it is written."""
    if not checkpoint.exists():
        return 0
    with np.load(checkpoint, allow_pickle=False) as file:
        return int(json.loads(bytes(file["meta"]))["epoch"])


def _save_images(folder: Path) -> None:
    folder.mkdir()
    for row, image in enumerate(load_digits().images[:IMAGES]):
        pixels = np.repeat((image * 255 / 16).astype(np.uint8)[..., None], 3, axis=-1)
        Image.fromarray(pixels).save(folder / f"{row:02d}.png")


def _save_answers(folder: Path) -> None:
    (folder / "expected").mkdir()
    for name in ("finished", "interrupted"):
        status = _unfreeze(folder, "status", name, "--storage", "runs", "--json")
        (folder / "expected" / f"status-{name}.json").write_text(status)
    model = "models:/unfreeze-digits@challenger"
    _unfreeze(
        folder,
        "predict",
        model,
        "images",
        "--storage",
        "runs",
        "--all",
        "--output",
        "expected/predictions.jsonl",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
