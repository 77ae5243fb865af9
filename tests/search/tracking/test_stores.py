"""Addresses of tracking stores are resolved and checked."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from search.records.formatting import without_secrets
from search.tracking.stores import (
    absolute_uri,
    artifact_location,
    check_sqlite,
    default_tracking_uri,
    sqlite_path,
)
from trainables.errors import TrackingError

WEIRD = ["plain", "with space", "ü 字", "it's", '"quoted"', "100%25", "a?b=c", "a#b", "a&b;c"]


@pytest.mark.parametrize("folder", WEIRD)
def test_sqlalchemy_opens_the_intended_file(tmp_path: Path, folder: str) -> None:
    from sqlalchemy.engine import make_url

    storage = tmp_path / folder
    uri = default_tracking_uri(storage)
    assert make_url(uri).database == str(storage / "mlflow.db")
    assert sqlite_path(uri) == storage / "mlflow.db"
    check_sqlite(uri)
    assert storage.is_dir()


def test_a_relative_store_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_uri("sqlite:///läufe/my.db") == f"sqlite:///{tmp_path}/läufe/my.db"
    assert absolute_uri("http://localhost:5000") == "http://localhost:5000"


@pytest.mark.parametrize("uri", ["./mlruns", "mlflow.db", "/abs/mlruns", ""])
def test_a_folder_is_not_accepted_as_a_store(uri: str) -> None:
    with pytest.raises(TrackingError, match=r"sqlite:///FILE.*received"):
        absolute_uri(uri)


def test_artifacts_are_next_to_the_database(tmp_path: Path) -> None:
    storage = tmp_path / "a ü"
    assert artifact_location(default_tracking_uri(storage), Path("/x")) == (storage / "mlartifacts").as_uri()
    assert artifact_location("postgresql://h/db", storage) == (storage / "mlartifacts").as_uri()
    assert artifact_location("https://mlflow.example", storage) is None


def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, " * 100)
    with pytest.raises(TrackingError, match=r"mlflow\.db.*not a database"):
        check_sqlite(default_tracking_uri(tmp_path))


def test_a_store_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrackingError, match="expected a SQLite database that can be written"):
        check_sqlite(default_tracking_uri(tmp_path / "file" / "below"))


def test_checking_leaves_no_lock(tmp_path: Path) -> None:
    uri = default_tracking_uri(tmp_path)
    check_sqlite(uri)
    with sqlite3.connect(tmp_path / "mlflow.db", timeout=0) as connection:
        connection.execute("CREATE TABLE t (x)")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("postgresql://me:secret@h/db", "postgresql://me:***@h/db"),
        ("see http://a:b@h and http://h:80/x", "see http://a:***@h and http://h:80/x"),
        ("nothing: here@all", "nothing: here@all"),
    ],
)
def test_passwords_are_hidden(text: str, clean: str) -> None:
    assert without_secrets(text) == clean
