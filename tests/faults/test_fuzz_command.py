"""Test that wrong input to the command gives one message, the right exit code and no files."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from search import cli
from search.config.search_config import SearchConfig

LONGEST = 3000
"""Maximum length of a message. Most of it lists the valid keys."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, to which the command writes by default."""
    folder = tmp_path / "it's ü 字"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def message(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int) -> str:
    """Run the command, which must end with ``code``, and return its message."""
    assert cli.main(arguments) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    words = printed.err.removeprefix("starting\n")
    assert words.startswith("unfreeze: ")
    assert words.count("unfreeze: ") == 1
    assert len(words) < LONGEST
    assert not any(word in words for word in ("Traceback", "unexpected error: ", "\x1b"))
    return words


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 6), "red").save(file, "png")
    return file.getvalue()


def parquet(**columns: object) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"image": [png()] * 12, "label": ["a", "b"] * 6, **columns}), file)
    return file.getvalue()


def stream_with_damage() -> bytes:
    """An Arrow stream whose last label ends far beyond its buffer. Reading it without validation would crash."""
    file, labels = io.BytesIO(), ["fine"] * 11 + ["damaged"]
    content = pa.table({"image": pa.array([png()] * 12, pa.binary()), "label": labels})
    with pa.ipc.new_stream(file, content.schema) as writer:
        writer.write_table(content)
    end = (4 * 11 + 7).to_bytes(4, "little")
    before = (4 * 11).to_bytes(4, "little")
    assert file.getvalue().count(before + end) == 1
    return file.getvalue().replace(before + end, before + (2**31 - 1).to_bytes(4, "little"))


FILES: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "config.yaml": (lambda: b"trials: [1, 2]", 2, "config.yaml: trials: expected a whole number"),
    "tag.yaml": (lambda: b"data: !!timestamp soon", 2, "not valid YAML"),
    "utf16.yaml": (lambda: "data: a".encode("utf-16"), 2, "expected UTF-8"),
    "deep.yaml": (lambda: b"data: " + b"[" * 50_000, 2, "a deep nest"),
    "large.yaml": (lambda: b"data: " + b"a" * 200_000, 2, "at most 100 kB"),
    "red.yaml": (lambda: b'"\\e[31m": 1', 2, "unknown key"),
    "space.yaml --space": (lambda: b"dropout: {low: 0}", 2, "space.yaml': dropout: expected low and high"),
    "steps.yaml --space": (lambda: b"dropout: {low: 0, high: 1.0e-9, step: 1.0e-300}", 2, "1,000,000 steps"),
    "first.jsonl --enqueue": (lambda: b'{"head_units": true}', 2, "line 1: head_units: expected"),
    "late.jsonl --enqueue": (lambda: b'{"head_units": 0}\n{"head_units', 2, "line 2: expected a JSON object"),
    "one.parquet --data": (lambda: parquet(label=["a"] * 12), 1, "one class only"),
    "nan.parquet --data": (lambda: parquet(label=[float("nan")] * 12), 1, "rows have no label"),
    "none.parquet --data": (lambda: b"", 1, "can't read"),
    "cut.parquet --data": (lambda: parquet()[:-9], 1, "can't read"),
    "mad.arrow --data": (stream_with_damage, 1, "can't read"),
    "text.csv --data": (lambda: b"a,b", 1, "received the file"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_wrong_file_is_named_and_nothing_is_written(
    what: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *option = what.split()
    make, code, words = FILES[what]
    (here / name).write_bytes(make())
    assert words in message(capsys, ["search", *option, name], code)
    assert names_in(here) == [name]


def test_a_wrong_file_archives_no_earlier_search(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    earlier = here / "unfreeze-runs" / "digits"
    earlier.mkdir(parents=True)
    (earlier / "ledger.db").write_bytes(b"of an earlier search")
    (here / "first.jsonl").write_text("[]")
    message(capsys, ["search", "--fresh", "--enqueue", "first.jsonl"], 2)
    assert names_in(here / "unfreeze-runs") == ["digits"]
    assert names_in(earlier) == ["ledger.db"]


LONG, NAMELESS, LATIN = "a" * 5000, "\ud800", os.fsdecode(b"caf\xe9")
ARGUMENTS: list[tuple[list[str], int, str]] = [
    ([LONG], 2, "unknown command"),
    (["\x1b[31m"], 2, "unknown command"),
    (["search", LONG], 2, "expected an argument"),
    (["search", "a" * 300], 2, "expected an argument"),
    (["search", NAMELESS], 2, "config file"),
    (["search", "/dev/zero"], 2, "at most 100 kB"),
    (["search", "a\0b"], 2, "expected an argument"),
    (["search", f"--{'a' * 200}"], 2, "unknown argument"),
    (["search", "--data", "a/" * 3000], 2, "expected an argument"),
    (["search", "--data", LATIN], 1, "which doesn't exist"),
    (["search", "--data", "~nobody/x"], 1, "received '~nobody/x'"),
    (["search", "--data", "/dev/zero"], 1, "received the file"),
    (["search", "--data", ""], 2, "--data: expected text"),
    (["search", "--weights", NAMELESS], 2, "--weights: expected a path"),
    (["search", "--name", NAMELESS], 2, "--name: expected a name"),
    (["search", "--seed", "9" * 200], 2, "--seed: expected a whole number"),
    (["search", "--trials", "1e400"], 2, "--trials: expected a whole number"),
    (["search", "--cpus-per-trial", "nan"], 2, "--cpus-per-trial: expected a number"),
    (["search", "--time-budget", "1d" + " " * 200 + "x"], 2, "--time-budget: expected a length of time"),
    (["search", "--space", "none.yaml"], 2, "no such file"),
    (["search", "--enqueue", "none.jsonl"], 2, "no such file"),
    (["search", "--storage", "/dev/null/x"], 1, "storage: expected a folder"),
    (["status", LONG], 2, "expected an argument"),
    (["status", "../.."], 1, "name: expected a search"),
    (["status", "x", "--ledger", "nothing"], 1, "ledger: expected a database"),
    (["report", "\x1b[31m"], 1, "name: expected a search"),
    (["promote", "x"], 2, "--storage: expected a folder with the runs"),
    (["rollback", ""], 2, "--storage: expected a folder with the runs"),
    (["predict", "models:/x@champion", "/dev/null"], 2, "--storage: expected a folder with the runs"),
    (["predict", "models:/x@champion", "none.png"], 2, "no such file"),
    (["predict", "models:/x@champion", "none.png", "--batch-size", "9" * 200], 2, "--batch-size: expected"),
    (["ui", "--storage", "none"], 2, "--storage: expected a folder with the runs"),
    (["ui", "--port", "soon"], 2, "expected"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), ARGUMENTS)
def test_a_wrong_argument_is_named_and_nothing_is_written(
    arguments: list[str], code: int, words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in message(capsys, arguments, code)
    assert names_in(here) == []


flags = st.sampled_from(
    ["--" + (field.alias or name).replace("_", "-") for name, field in SearchConfig.model_fields.items()]
)
values = st.text(max_size=12) | st.sampled_from(
    [
        "",
        "-1",
        "1e400",
        "nan",
        "\0",
        "\ud800",
        "~",
        "../..",
        "none",
        "true",
        "a" * 300,
        "9" * 300,
        "{}",
        "--",
        "=",
        "\x1b[2J",
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(options=st.lists(st.tuples(flags, values), max_size=4))
def test_a_missing_space_file_is_an_error_with_any_options(
    options: list[tuple[str, str]], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [word for pair in options for word in pair]
    code = cli.main(["search", *arguments, "--space=none.yaml"])
    printed = capsys.readouterr().err
    if "usage:" in printed or code == 0:  # -h among the values
        return
    assert code == 2
    assert not any(word in printed for word in ("Traceback", "unexpected error: ", "\x1b"))
    assert len(printed) < LONGEST
    assert names_in(here) == []
