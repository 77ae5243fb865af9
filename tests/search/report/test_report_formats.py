"""The report as Markdown and PNG, and the command that writes it."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from example_records import finished, search
from PIL import Image

from search.cli import main
from search.config.space import core_space
from search.ledger.ledger import Ledger, sqlite_url
from search.ledger.reader import about_to_json, read_record
from search.records.record import Interval, SearchRecord
from search.records.results import outcome_to_json
from search.report.figures import figures
from search.report.formats import write_run_artifacts
from search.report.markdown import markdown
from search.report.pictures import pictures, write_pictures
from trainables.epoch_metrics import EpochMetrics

HOSTILE = "</td>|<img src=x onerror=alert(1)>\n# `x` @someone [a](https://evil.example/) $HOME;'"


def test_markdown_has_verdict_best_trials_importance_and_next_steps() -> None:
    intervals = {"learning_rate": Interval(0.6, 0.3, 0.8)}
    text = markdown(finished(importance_intervals=intervals, edges=("learning_rate",)))
    best = search().best
    assert best is not None
    assert f"## The winner: trial {best.number} of 12 trials on pets" in text
    assert "- Test accuracy: **95.4 %**. 95 % interval 94.3 to 96.5 %" in text
    assert (
        "- Transfer gain over scratch: **+2.7 points** (transfer helps). 95 % interval +1.3 to +4.1" in text
    )
    assert "**Warning:** The best learning rate" in text
    assert f"| {best.number} ★ |" in text
    assert "| learning rate | 60 % | 30 to 80 % |" in text
    assert "| head units | 10 % | – |" in text
    assert "```sh\nunfreeze promote unfreeze-pets --version 3 --storage runs\n```" in text
    assert "digest 9f2c41d0" in text


def tables(text: str) -> list[list[str]]:
    return [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]


def test_markdown_tables_are_whole_and_the_best_trials_come_first() -> None:
    text = markdown(finished(40))
    trials, importances = tables(text)
    for table in (trials, importances):
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table}
        assert len(cells) == 1
    values = [float(line.split("|")[2].replace("%", "")) for line in trials[2:]]
    assert values == sorted(values, reverse=True)
    assert len(values) == 8
    assert len(text) < 6000


def test_markdown_escapes_hostile_names() -> None:
    known = finished(name=HOSTILE, storage=HOSTILE, importances={HOSTILE: 1.0}, edges=(HOSTILE,))
    trials = tuple(replace(t, params={**t.params, HOSTILE: HOSTILE}) for t in known.trials)
    text = markdown(replace(known, trials=trials, task=replace(known.task, name=HOSTILE, digest="\udcff")))
    outside = re.sub(r"^(`{3,})sh\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"(?<!\\)<|(?<!\\)`|@s|https://", outside)
    assert not re.search(r"^# ", outside, re.MULTILINE)
    columns = ["trial", "value", *{name for t in trials for name in t.params}, "epochs", "state"]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables(outside)[0]} == {len(columns) + 1}


def test_passwords_are_not_in_the_markdown() -> None:
    secret = "postgresql://ada:hunter2@db:5432/runs"
    assert "hunter2" not in markdown(finished(config={"tracking_uri": secret}, storage=secret))


@pytest.mark.parametrize("trials", [0, 1, 3])
def test_a_search_that_has_just_started_has_both(trials: int, tmp_path: Path) -> None:
    record = replace(search(trials), importances={})
    assert "unfreeze status pets-1" in markdown(record)
    written = write_pictures(record, tmp_path)
    assert bool(written) == bool(trials)


@pytest.mark.slow
def test_each_figure_is_a_readable_picture(tmp_path: Path) -> None:
    record = finished()
    written = write_pictures(record, tmp_path / "plots ü")
    assert {path.stem for path in written} == set(figures(record))
    for path in written:
        with Image.open(path) as picture:
            picture.load()
            width, height = picture.size
            colours = picture.convert("RGB").getcolors(maxcolors=2**24)
        assert 600 <= width <= 2400, path.name
        assert 150 <= height <= 1600, path.name
        assert colours is not None
        most, white = max(colours)
        assert white == (255, 255, 255)
        assert 0.4 < most / (width * height) < 0.995, path.name  # there is paper, and something on it
    assert sum(path.stat().st_size for path in written) < 5_000_000


def test_pictures_have_the_light_colours_of_the_page() -> None:
    png = dict(pictures(finished()))["calibration"]
    with Image.open(io.BytesIO(png)) as picture:
        colours = picture.convert("RGB").getcolors(maxcolors=2**24) or []
    assert min(math.dist((10, 95, 168), colour) for _, colour in colours) < 8  # --accent


def test_files_for_mlflow_are_of_this_search_only(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "slice-99.png").write_bytes(b"old")
    heard: list[str] = []
    left = write_run_artifacts(finished(), tmp_path, heard.append)
    assert [path.name for path in left] == ["report.md", "plots"]
    assert not (tmp_path / "plots" / "slice-99.png").exists()
    assert (tmp_path / "plots" / "history.png").stat().st_size > 5000
    assert heard == []


def in_storage(storage: Path, trials: int = 200, epochs: int = 20) -> SearchRecord:
    """Return a search of the given number of trials, written by the ledger itself, and its outcome."""
    space = core_space(3)
    folder = storage / "pets"
    folder.mkdir(parents=True)
    ledger = Ledger(
        sqlite_url(folder / "ledger.db"),
        "pets",
        direction="maximize",
        metric="val_accuracy",
        method="finetune",
        sampler="random",
        seed=0,
    )
    known = finished(name="pets", requested=trials)
    with ledger.wal_mode():
        for _ in range(trials):
            started = ledger.start(space.suggest)
            rate, depth = float(started.params["learning_rate"]), int(started.params["unfreeze_depth"])
            top = 0.9 - 0.05 * abs(depth - 2) - abs(rate - 3e-3) ** 0.5
            ran = epochs if started.number % 3 else max(1, epochs // 3)
            for n in range(1, ran):
                ledger.report(started.number, EpochMetrics(n, top * n / epochs, 1 / n, 1 / n, 0.5))
            last = EpochMetrics(ran, top * ran / epochs, 1 / ran, 1 / ran, 0.5)
            state = "complete" if ran == epochs else "pruned"
            ledger.finish(
                started.number, state, epoch=last, reason=None if state == "complete" else "scheduler"
            )
    assert known.started is not None
    ledger.set_attribute("started", known.started.isoformat())
    ledger.set_attribute("elapsed", 4000.0)
    ledger.set_attribute("about", about_to_json(known))
    best = max(ledger.trials, key=lambda t: t.value or 0.0)
    assert known.outcome is not None
    ledger.set_attribute(
        "outcome", outcome_to_json(replace(known.outcome, trial=best.number, params=dict(best.params)))
    )
    return read_record("pets", str(storage), whole=True)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with the search ``pets`` of 200 trials with up to 20 epochs."""
    folder = tmp_path_factory.mktemp("searches") / "läufe"
    in_storage(folder)
    return folder


def test_200_trials_come_back_from_the_ledger_with_everything(storage: Path) -> None:
    record = read_record("pets", str(storage), whole=True)
    assert len(record.trials) == 200
    assert set(record.importance_intervals) == set(record.importances) == set(core_space(3).ranges)
    for name, interval in record.importance_intervals.items():
        assert interval.low <= record.importances[name] <= interval.high
    assert record.outcome is not None
    assert record.outcome.calibration == finished().outcome.calibration  # type: ignore[union-attr]
    drawn = figures(record)
    assert all(figure.spec for figure in drawn.values() if figure.key != "stages")
    assert "of the differences, at least" in drawn["importance"].title
    assert not read_record("pets", str(storage)).importance_intervals  # what takes a moment is for who asks


@pytest.mark.parametrize(("form", "name"), [("html", "report.html"), ("md", "report.md"), ("png", "plots")])
def test_the_command_writes_each_format_to_the_path_it_prints(
    form: str, name: str, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "pets", "--storage", str(storage), "--format", form]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == storage / "pets" / name
    size = sum(f.stat().st_size for f in path.iterdir()) if path.is_dir() else path.stat().st_size
    assert 1000 < size < 5_000_000


def test_markdown_to_the_terminal(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "pets", "--storage", str(storage), "--format", "MD", "--output", "-"]) == 0
    out = capsys.readouterr().out
    assert out == markdown(read_record("pets", str(storage), whole=True))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "pdf"], "--format: expected one of html, md, png, received 'pdf'"),
        (["--format", "htm"], "(did you mean 'html'?)"),
        (["--format", ""], "--format: expected one of html, md, png, received ''"),
        (["--format", "png", "--output", "-"], "--output: expected a path with --format png, received '-'"),
    ],
)
def test_an_unknown_format_is_refused(
    arguments: list[str], words: str, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(storage.rglob("*"))
    assert main(["report", "pets", "--storage", str(storage), *arguments]) == 2
    assert words in capsys.readouterr().err
    assert sorted(storage.rglob("*")) == before


@pytest.mark.parametrize(("form", "what"), [("png", "folder"), ("md", "file"), ("html", "file")])
def test_a_path_that_is_not_writable_is_refused(
    form: str, what: str, storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    place = str(tmp_path / "file" / "report")
    assert main(["report", "pets", "--storage", str(storage), "--format", form, "--output", place]) == 1
    error = capsys.readouterr().err
    assert f"output: expected a {what} that can be written, received {place!r}" in error
