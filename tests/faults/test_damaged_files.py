"""Test files of a search that are damaged, half-written or of another version."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.execution.engines.engine import Engine
from search.execution.engines.jobs import PrepareBackbone
from search.ledger.attributes import StudyKey
from search.ledger.format_version import LEDGER_FORMAT, check_format
from search.ledger.ledger import Ledger, sqlite_url
from search.ledger.reader import read_record
from search.ledger.workspace import Workspace
from search.records.record import TrialRecord
from search.study.winner.confirmation import ConfirmationCandidate, ConfirmationRun, read_run
from trainables.backbones.backbone import Backbone
from trainables.backbones.spec import BackboneSpec
from trainables.errors import BackboneError, LedgerError
from trainables.modalities.image.backbones import load

OpenLedger = Callable[..., Ledger]

ABOUT: dict[str, Any] = {
    "metric": "val_accuracy",
    "direction": "maximize",
    "task": {
        "name": "t",
        "digest": "d",
        "classes": ["a", "b"],
        "counts": {"train": 1},
        "image_size": [8, 8],
        "source": "digits",
    },
    "backbone": {
        "name": "print",
        "weights": "default",
        "digest": "b",
        "input_size": [8, 8],
        "parameters": 1,
        "blocks": ["top"],
    },
    "config": {},
    "requested": 1,
    "tracking_uri": "x",
}


@pytest.fixture
def written(tmp_path: Path, open_ledger: OpenLedger) -> Callable[..., None]:
    """Write a search's ledger as another version would have written it."""

    def write(**notes: Any) -> None:
        workspace = Workspace(tmp_path, "photos")
        workspace.create()
        ledger = open_ledger(sqlite_url(workspace.ledger), "photos")
        for key, value in {"about": ABOUT, "started": "2026-01-02T03:04:05+00:00", **notes}.items():
            ledger.set_attribute(key, value)

    return write


def test_a_ledger_without_a_format_version_is_read(tmp_path: Path, written: Callable[..., None]) -> None:
    written()
    assert read_record("photos", str(tmp_path)).task.name == "t"


def test_a_ledger_of_a_later_version_is_refused_with_both_formats(
    tmp_path: Path, written: Callable[..., None]
) -> None:
    written(**{StudyKey.FORMAT: LEDGER_FORMAT + 1})
    with pytest.raises(
        LedgerError, match=rf"later version of unfreeze \(format {LEDGER_FORMAT + 1}; .*{LEDGER_FORMAT}\)"
    ):
        read_record("photos", str(tmp_path))
    check_format("photos", {StudyKey.FORMAT: LEDGER_FORMAT}.get)


@pytest.mark.parametrize(
    "notes",
    [
        {"about": {**ABOUT, "task": {**ABOUT["task"], "colour": "red"}}},
        {"about": {k: v for k, v in ABOUT.items() if k != "backbone"}},
        {"about": {**ABOUT, "backbone": [1]}},
        {"outcome": {"trial": 3, "colour": "red"}},
        {"started": "yesterday"},
    ],
)
def test_attributes_of_another_version_are_refused_with_a_message(
    tmp_path: Path, written: Callable[..., None], notes: dict[str, Any]
) -> None:
    written(**notes)
    with pytest.raises(LedgerError, match="another version of unfreeze, or changed by hand"):
        read_record("photos", str(tmp_path))


def test_tables_of_another_optuna_version_are_refused_with_the_upgrade_command(
    tmp_path: Path, open_ledger: OpenLedger
) -> None:
    file = tmp_path / "ledger ü.db"
    open_ledger(sqlite_url(file))
    with sqlite3.connect(file) as database:
        database.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    with pytest.raises(LedgerError, match=r"another version of Optuna.*optuna storage upgrade --storage"):
        open_ledger(sqlite_url(file))


@given(place=st.floats(0, 1), bits=st.integers(1, 255), cut=st.sampled_from([0.0, 0.5, 0.999, 1.0, 1.0]))
@settings(max_examples=12, deadline=None)
def test_a_damaged_backbone_file_is_refused_or_unchanged(
    tmp_path_factory: pytest.TempPathFactory, place: float, bits: int, cut: float
) -> None:
    file = tmp_path_factory.mktemp("backbone") / "backbone.keras"
    whole = load(BackboneSpec("print"))
    whole.save(file)
    content = bytearray(file.read_bytes())
    content[int(place * (len(content) - 1))] ^= bits
    file.write_bytes(content[: int(cut * len(content))])
    try:
        found = Backbone.open(file)
    except BackboneError:
        return
    assert found.digest == whole.digest


@pytest.mark.parametrize("keep", [0.0, 0.5, 1.0])
def test_a_damaged_backbone_file_of_a_search_is_written_again(tmp_path: Path, keep: float) -> None:
    engine, file = Engine(threads=2), tmp_path / "search" / "backbone.keras"
    job = PrepareBackbone(BackboneSpec("print"), file)
    first = engine.run(job)
    content = file.read_bytes()
    damaged = content[: int(keep * len(content))] if keep < 1 else content.replace(b"PK", b"KP")
    file.write_bytes(damaged)
    assert engine.run(job) == first
    assert Backbone.open(file).digest == first.digest


def test_a_damaged_model_of_the_winner_counts_as_not_trained(tmp_path: Path) -> None:
    candidate = ConfirmationCandidate(TrialRecord(3, "complete", "finetune", {}), epochs=1)
    model, facts = (tmp_path / f"finetune-3-seed-7{suffix}" for suffix in (".keras", ".json"))
    assert read_run(tmp_path, candidate, 7) is None
    load(BackboneSpec("print")).save(model)
    facts.write_text(json.dumps({"val_accuracy": 0.5, "val_loss": 1.0, "epoch": 1}))
    assert read_run(tmp_path, candidate, 7) == ConfirmationRun(7, model, 0.5, 1.0)
    whole = model.read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:]):
        model.write_bytes(content)
        assert read_run(tmp_path, candidate, 7) is None
    model.write_bytes(whole)
    for text in ("", "{", "[]", "{}"):
        facts.write_text(text)
        assert read_run(tmp_path, candidate, 7) is None
