"""``unfreeze score``: the images that it uses, the scores of the frozen features, and the table that it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits

from search import cli
from search.commands import score as command
from search.commands.score import dot_plot, scoring_page
from search.config.search_config import SearchConfig
from search.records.record import Interval
from search.records.scores import BackboneScores, DomainSimilarity, ScoringResult, scoring_json
from search.report.scores_page import write_scoring
from search.study.resolved_inputs import data_folder
from search.study.scoring import score_backbones
from search.views.view import QuietView
from trainables.data.task import open_task
from trainables.errors import BackboneError, DataError, SearchError, UsageError
from trainables.transferability import knn_accuracy, label_cka, logme
from trainables.transferability.feature_sample import shared_image_ids

CLASSES = 3


@pytest.fixture(scope="module")
def photos(weird_folder: Path) -> Path:
    """Return a folder with twenty digits of each of three classes, without splits."""
    data = load_digits()
    for digit in range(CLASSES):
        folder = weird_folder / "to score ü" / str(digit)
        folder.mkdir(parents=True)
        for row in np.flatnonzero(data.target == digit)[:20]:
            Image.fromarray(np.rint(data.images[row] * 15).astype(np.uint8)).save(folder / f"{row}.png")
    return weird_folder / "to score ü"


@pytest.fixture(scope="module")
def scored(photos: Path, weird_folder: Path) -> tuple[ScoringResult, dict[str, SearchConfig]]:
    """Score the built-in backbone at two input sizes and a missing one, with the digits as the source."""
    given = {"data": str(photos), "storage": str(weird_folder / "scores"), "seed": 3}
    configs = {
        "print": SearchConfig(**given),
        "absent": SearchConfig(**given, backbone="absent.keras"),
        "small": SearchConfig(**given, input_size=24),
    }
    return score_backbones(configs, "digits", 200, QuietView()), configs


def task_of(config: SearchConfig, size: int):  # type: ignore[no-untyped-def]
    return open_task(Path(config.storage) / ".data" / data_folder(config, (size, size)))


@pytest.mark.slow
def test_every_backbone_is_scored_on_the_same_images_without_test_images(
    scored: tuple[ScoringResult, dict[str, SearchConfig]],
) -> None:
    scoring, configs = scored
    known = []
    for name, size in (("print", 32), ("small", 24)):
        task = task_of(configs[name], size)
        known.append({i for split in ("train", "validation") for i in task.split(split).ids[:]})
    assert known[0] == known[1]  # the splits follow from the files, whatever the size
    assert scoring.images == scoring.available_images == len(known[0] & known[1])
    assert (scoring.classes, scoring.source) == (CLASSES, "digits")
    assert {b.name for b in scoring.backbones} == {"print", "small"}
    assert list(scoring.failed) == ["absent"]
    assert "absent.keras" in scoring.failed["absent"]


@pytest.mark.slow
def test_scores_are_those_of_the_frozen_features(
    scored: tuple[ScoringResult, dict[str, SearchConfig]],
) -> None:
    from trainables.backbones.spec import BackboneSpec
    from trainables.modalities.image.backbones import load

    scoring, configs = scored
    backbone = load(BackboneSpec("print"))
    found, images = next(b for b in scoring.backbones if b.name == "print"), {}
    ids = [set(), set()]  # type: ignore[var-annotated]
    for at, (name, size) in enumerate((("print", 32), ("small", 24))):
        for part in ("train", "validation"):
            split = task_of(configs[name], size).split(part)
            ids[at].update(split.ids[:])
            if size == 32:
                images.update(zip(split.ids[:], zip(split.images, split.labels, strict=True), strict=True))
    pixels, labels = zip(*(images[i] for i in ids[0] & ids[1]), strict=True)
    features = np.asarray(backbone.model(np.stack(pixels).astype(np.float32), training=False))
    assert found.knn.estimate == pytest.approx(knn_accuracy(features, np.array(labels)), abs=0.03)
    assert found.logme == pytest.approx(logme(features, np.array(labels)), abs=0.01)
    assert found.label_cka == pytest.approx(label_cka(features, np.array(labels)), abs=0.01)
    assert (found.features, found.parameters, found.digest) == (112, backbone.parameters, backbone.digest)
    likeness = found.likeness
    assert likeness is not None
    assert likeness.leep <= 0 >= likeness.nce
    assert 0 < likeness.mmd_p_value <= 1
    assert 0.5 < scoring.feature_cka["print", "small"] <= 1


@pytest.mark.slow
def test_activations_are_kept_for_the_search(
    scored: tuple[ScoringResult, dict[str, SearchConfig]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainables.activations.activations import ActivationCache
    from trainables.activations.machine_speed import MeasuredSpeeds
    from trainables.backbones.spec import BackboneSpec
    from trainables.modalities.image.backbones import load

    # Otherwise the cache would write no file for so few images.
    monkeypatch.setattr(MeasuredSpeeds, "min_seconds_for_file", 0.0)
    _, configs = scored
    backbone, task, cache = load(BackboneSpec("print")), task_of(configs["print"], 32), tmp_path / "cäche"
    config = configs["print"].replace(cache=str(cache))
    score_backbones({"print": config}, None, 200, QuietView())
    backbone.save(tmp_path / "as a search has it.keras")
    as_searched = type(backbone).open(tmp_path / "as a search has it.keras")
    activations = ActivationCache(as_searched, task, directory=cache)
    for split in ("train", "validation"):
        kept = activations.cached(split, 0)
        assert kept is not None
        assert kept.shape == (task.counts[split], 112)
    few = score_backbones({"print": config.replace(cache="off")}, None, 10, QuietView())
    assert few.images == 10
    assert (
        few.note == "3.3 images per class are few (--images N takes more): differences may be due to chance"
    )


@pytest.mark.slow
def test_backbones_without_an_image_in_common_are_refused(
    scored: tuple[ScoringResult, dict[str, SearchConfig]],
) -> None:
    config = scored[1]["print"]
    tasks = [task_of(config, 32), task_of(config.replace(data="digits"), 32)]
    assert len(shared_image_ids(tasks[:1], 0)) == sum(tasks[0].counts[s] for s in ("train", "validation"))
    with pytest.raises(DataError, match="found 0; give all backbones one --input-size"):
        shared_image_ids(tasks, 0)


@pytest.mark.slow
def test_an_error_of_all_backbones_is_raised(photos: Path, tmp_path: Path) -> None:
    absent = SearchConfig(data=str(photos), backbone="absent.keras", storage=str(tmp_path))
    with pytest.raises(BackboneError, match=r"absent\.keras"):
        score_backbones({"absent": absent}, None, 100, QuietView())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_prints_one_json_object_without_starting_ray(photos: Path, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom search.cli import main\n"
        "code = main(sys.argv[1:])\nprint('ray started' if 'ray' in sys.modules else 'no ray', file=sys.stderr)\n"
        "sys.exit(code)"
    )
    report = tmp_path / "wie ähnlich?.html"
    line = ["score", "--data", str(photos), "--backbone", "print", "--backbone", "nothing.keras", "--json"]
    line += ["--storage", str(tmp_path / "runs"), "--report", str(report)]
    done = subprocess.run(
        [sys.executable, "-c", script, *line], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "unfreeze: backbone nothing.keras: " in done.stderr
    assert done.stderr.endswith("no ray\n")
    found = json.loads(done.stdout)
    assert [b["name"] for b in found["backbones"]] == ["print"]
    assert found["report"] == str(report)
    assert "<svg" in report.read_text(encoding="utf-8")


def backbone(
    name: str, knn: float, tied: bool = False, likeness: DomainSimilarity | None = None
) -> BackboneScores:
    return BackboneScores(
        name=name,
        weights="imagenet",
        digest="d" * 32,
        input_size=(224, 224),
        parameters=2_300_000,
        features=1280,
        knn=Interval(knn, knn - 0.02, knn + 0.015),
        tied=tied,
        logme=-0.125,
        h_score=7.5,
        label_cka=0.5,
        likeness=likeness,
        seconds={"load": 1.0},
    )


LIKENESS = DomainSimilarity(-1.25, -1.5, 0.0625, 0.002)
SCORING = ScoringResult(
    task="cats & <dogs>",
    source="photos",
    classes=3,
    images=900,
    available_images=1200,
    neighbours=5,
    backbones=(
        backbone("A<b>", 0.91, likeness=LIKENESS),
        backbone("B", 0.905, tied=True, likeness=LIKENESS),
    ),
    feature_cka={("A<b>", "B"): 0.875},
    failed={"C": "no weights"},
    elapsed=2.5,
)


def printed(scoring: ScoringResult, ascii_only: bool = False) -> str:
    console = Console(width=80, force_terminal=False)
    with console.capture() as captured:
        for part in scoring_page(scoring, ascii_only):
            console.print(part)
    return captured.get()


def test_the_table_fits_80_columns_and_states_the_limits_of_scores() -> None:
    lines = printed(SCORING).splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if line.startswith(("A<b>", "B "))]
    assert len(rows) == 4
    assert "91.0 %" in rows[0]
    assert "●" in rows[0]
    assert "≈ 90.5 %" in rows[1]
    assert "−0.125    7.500  0.500     2.3M" in rows[0]
    assert rows[2].split() == ["A<b>", "−1.250", "−1.500", "0.062", "0.002"]
    words = " ".join(" ".join(lines).split())
    assert "C: not scored: no weights" in words
    assert "A<b> and B 0.88" in words
    assert "They cannot predict what a backbone reaches once blocks are unfrozen" in words
    assert "A small p means" in words
    alone = printed(
        replace(SCORING, source=None, backbones=(backbone("A", 0.9),), feature_cka={}, failed={}),
        ascii_only=True,
    )
    assert "LEEP" not in alone
    assert not set("●├┤─≈") & set(alone)


def test_the_plot_puts_the_estimate_between_the_ends_of_its_interval() -> None:
    assert dot_plot(Interval(0.5, 0.25, 0.75), 0.0, 1.0, False, 9) == "  ├─●─┤  "
    assert dot_plot(Interval(0.5, 0.25, 0.75), 0.0, 1.0, True, 9) == "  |-o-|  "
    assert dot_plot(Interval(1.0, 1.0, 1.0), 1.0, 1.0, False, 3) == "●  "
    assert len(dot_plot(Interval(0.99, 0.5, 1.0), 0.5, 0.9, False, 12)) == 12


@pytest.mark.parametrize(
    ("suffix", "start"), [("html", b"<!doctype html>"), ("png", b"\x89PNG"), ("svg", b"<svg")]
)
def test_the_report_has_the_format_of_its_suffix(weird_folder: Path, suffix: str, start: bytes) -> None:
    path = weird_folder / "new folder" / f"scores.{suffix}"
    write_scoring(SCORING, path)
    content = path.read_bytes()
    assert content.startswith(start)
    if suffix == "html":
        page = content.decode()
        assert "Which backbone for cats &amp; &lt;dogs&gt;?" in page
        assert "A<b>" not in page
        assert "http-equiv" not in page
        assert 'src="' not in page
        assert "-1.250" in page
        assert "Start with k-NN" in page


def test_a_report_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SearchError, match="--report: expected a file that can be written"):
        write_scoring(SCORING, tmp_path / "file" / "s.svg")


def test_json_holds_every_number_and_is_valid() -> None:
    odd = replace(SCORING, backbones=(replace(backbone("A", 0.9), logme=float("nan")),))
    found = json.loads(json.dumps(scoring_json(odd, None), allow_nan=False))
    assert found["backbones"][0]["logme"] is None
    whole = scoring_json(SCORING, "here.html")
    assert whole["backbones"][0]["knn"] == {"estimate": 0.91, "low": 0.89, "high": 0.925}
    assert whole["backbones"][0]["likeness"]["mmd_p_value"] == 0.002
    assert whole["alike"] == [{"backbones": ["A<b>", "B"], "cka": 0.875}]
    assert whole["failed"] == {"C": "no weights"}


def configured(*line: str) -> dict[str, SearchConfig]:
    return command.backbone_configs(command.parser().parse(line))


def test_weights_are_given_once_for_all_backbones_or_once_for_each() -> None:
    assert list(configured()) == ["print"]
    all_alike = configured(
        "--backbone", "A.keras", "--backbone", "B.keras", "--weights", "none", "--seed", "2"
    )
    assert [(n, c.backbone, c.weights, c.seed) for n, c in all_alike.items()] == [
        ("A.keras", "A.keras", "none", 2),
        ("B.keras", "B.keras", "none", 2),
    ]
    twice = ("--backbone", "print", "--backbone", "print")
    each = configured(*twice, "--weights", "default", "--weights", "none")
    assert {n: c.weights for n, c in each.items()} == {"print (default)": "default", "print (none)": "none"}
    with pytest.raises(
        UsageError, match="--weights: expected one for all backbones or one for each of the 3, received 2"
    ):
        configured(*twice, "--backbone", "X.keras", "--weights", "none", "--weights", "none")
    with pytest.raises(UsageError, match="--backbone: expected each one once, received 'print' twice"):
        configured(*twice)


def test_options_have_the_same_meaning_as_in_a_search() -> None:
    fields = [name for names in command.FIELDS.values() for name in names]
    assert set(fields) <= set(SearchConfig.model_fields)
    assert "test_fraction" in fields
    assert "trials" not in fields


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (["--images", "few"], 2, "--images: expected a whole number from 10 to 10,000, received 'few'"),
        (["--images", "9"], 2, "--images: expected"),
        (["--report", "s.pdf"], 2, "--report: expected a file that ends in .html, .png, .svg"),
        (["--data", "none"], 1, "which doesn't exist"),
        (["--source", "none"], 1, "which doesn't exist"),
        (["--input-size", "tiny"], 2, "--input-size: expected a whole number"),
        (["--trials", "3"], 2, "--trials: unknown argument"),
    ],
)
def test_errors_are_reported_before_anything_is_loaded_or_written(
    line: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["score", *line]) == code
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []
