"""The HTML report is parsed as a browser would parse it."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from example_records import PNG, curve, finished, search, trial

from search.records.record import ErrorExample, Interval, SearchRecord
from search.report.formats import write_report

SECTIONS = {"how", "what", "winner", "time", "trials", "again"}
ALWAYS = {"history", "anytime", "curves", "importance", "landscape", "parallel", "comparison", "confusion"}
ALWAYS |= {"calibration", "stages"}
FIGURES = ALWAYS | {f"slice-{n}" for n in range(6)}
VOID = {"meta", "br", "img", "wbr", "link", "input", "hr"}
LOADS = {"src", "href", "srcset", "action", "data", "poster", "background"}
HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{{ 7*7 }}"


class Page(HTMLParser):
    """A parsed report: its elements, its text, the JSON of its figures, and tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.unmatched: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.elements.append((tag, found))
        if tag == "script":
            self.scripts.append((found, ""))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.unmatched.append(tag)

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif not self._open or self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"[\s\u202f]+", " ", "".join(self.words))

    @property
    def ids(self) -> set[str]:
        return {attributes["id"] for _, attributes in self.elements if "id" in attributes}

    def figure(self, key: str) -> Any:
        return json.loads(
            next(text for attributes, text in self.scripts if attributes.get("data-figure") == key)
        )

    @property
    def drawn(self) -> set[str]:
        return {attributes["data-figure"] for attributes, _ in self.scripts if "data-figure" in attributes}

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def report(record: SearchRecord, folder: Path) -> Page:
    path = folder / "a report, 字 ü'" / "report.html"
    write_report(record, path)
    page = Page(path.read_text("utf-8"))
    assert page.unmatched == []
    return page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The report on a search without problems."""
    known = finished(edges=("learning_rate",), importances={"learning_rate": 0.6, "unfreeze_depth": 0.2})
    return report(replace(known, task=replace(known.task, skipped=2)), tmp_path_factory.mktemp("report"))


def test_every_section_and_figure_is_there(page: Page) -> None:
    assert page.ids >= SECTIONS
    assert page.drawn == FIGURES
    assert len(page.named("h1")) == len(page.named("main")) == 1
    links = {attributes["href"].removeprefix("#") for attributes in page.named("a")}
    assert links <= page.ids


def test_first_screen_shows_the_winner_its_gain_and_the_cost(page: Page) -> None:
    first_screen = page.text.split("How the search went")[0]
    best = search().best
    assert best is not None
    assert f"The winner: trial {best.number} of 12 trials on pets" in first_screen
    assert f"Unfreeze the top {best.params['unfreeze_depth']} of 3 blocks" in first_screen
    for words in (
        "95.4%",
        "94.3 to 96.5 %",
        "152 test images",
        "+2.7points",
        "+1.3 to +4.1",
        "Transfer helps",
    ):
        assert words in first_screen
    for words in ("4m 05s", "20s a trial", "scratch 92.5 %"):
        assert words in first_screen


def test_warnings_come_before_the_figures(page: Page) -> None:
    first_screen = page.text.split("How the search went")[0]
    assert "The best learning rate" in first_screen
    assert "is at the edge of its range" in first_screen
    assert "2 images could not be read and were left out" in first_screen
    assert "1 of 12 trials failed: 1 crashed" in first_screen


def test_trials_with_batches_of_their_own_are_named(page: Page, tmp_path: Path) -> None:
    known = finished(config={"data": "pets/", "epochs": 5, "seed": 7, "batch_size": 32})
    trials = tuple(replace(t, batch_size=16) if t.number in (3, 5) else t for t in known.trials)
    text = report(replace(known, trials=trials), tmp_path).text
    assert "2 trials ran out of memory with batches of 32" in text
    assert "continued with smaller ones (16 in trial 3 and 16 in trial 5)" in text
    assert "with smaller ones" not in page.text


def test_next_commands_can_be_pasted(tmp_path: Path) -> None:
    words = report(finished(storage="my runs/ü"), tmp_path).text
    assert "unfreeze ui --storage 'my runs/ü'" in words
    # The numbers name the same model whenever the page is read; an alias may point to another one by then.
    assert "unfreeze promote unfreeze-pets --version 3 --storage 'my runs/ü'" in words
    assert "unfreeze predict models:/unfreeze-pets/3 " in words
    assert "@challenger" not in words


def test_nothing_is_loaded_from_the_network(page: Page) -> None:
    loads = [value for _, found in page.elements for name, value in found.items() if name in LOADS]
    assert loads
    assert [value for value in loads if not value.startswith(("#", "data:image/png;base64,"))] == []
    assert re.findall(r"@import|url\(\s*['\"]?(?!#)", page.html.split("</style>")[0]) == []
    policy = next(found["content"] for found in page.named("meta") if "http-equiv" in found)
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_figures_have_titles_and_alternatives(page: Page) -> None:
    plots = {found["id"]: found for _, found in page.elements if found.get("id", "").startswith("plot-")}
    assert set(plots) == {f"plot-{key}" for key in FIGURES}
    for key in FIGURES:
        assert len(plots[f"plot-{key}"]["aria-label"]) > 20
        assert f"title-{key}" in page.ids
    assert all("alt" in found for found in page.named("img"))


def test_the_table_has_every_trial_with_its_numbers(page: Page) -> None:
    rows = [found for found in page.named("tr") if "data-trial" in found]
    assert [int(found["data-trial"]) for found in rows] == list(range(12))
    keys = re.findall(r'<tr data-trial="1".*?</tr>', page.html, re.DOTALL)[0]
    one = trial(1)
    for key in (one.value, one.params["learning_rate"], 64.0, len(one.epochs), one.seconds):
        assert f'data-key="{key}"' in keys
    assert page.html.count('class="won"') == 1
    assert "ValueError: no" in page.text


def test_history_draws_every_trial_once_and_the_best_so_far(page: Page) -> None:
    known = search()
    drawn = json.dumps(page.figure("history"))
    for value in (t.value for t in known.trials if t.value is not None):
        assert str(value) in drawn
    sources = [part["values"] for part in page.figure("history")["data"] if "values" in part]
    steps = next(rows for rows in sources if "state" not in rows[0] and len(rows) > 1 and "value" in rows[0])
    values = [row["value"] for row in steps]
    assert values == sorted(values)
    assert values[-1] == known.best.value if known.best else False


def test_parallel_coordinates_keep_trials_that_lack_a_parameter(page: Page) -> None:
    spec = page.figure("parallel")
    rows = spec["data"][0]["values"]
    assert {row["trial"] for row in rows} == {t.number for t in search().trials if t.value is not None}
    below = [row for row in rows if min(row[name] for name in row if name.startswith("a")) < -0.1]
    assert {row["trial"] for row in below} == {
        t.number for t in search().trials if t.value and t.number % 3 == 0
    }
    assert "not used" in json.dumps(spec["marks"])


def test_parallel_axes_grow_upwards_like_their_labels(page: Page) -> None:
    spec = page.figure("parallel")
    scales = {scale["name"]: scale for scale in spec["scales"]}
    place = next(i for i in range(9) if scales[f"scale_{i}"]["domain"] == ["0", "64"])
    assert scales[f"scale_{place}"]["range"] == [{"signal": "height"}, 0]
    for row in spec["data"][0]["values"]:
        assert (row[f"a{place}"] > 0.5) == (trial(row["trial"]).params["head_units"] == 64)


def test_pictures_are_embedded_in_the_report(page: Page) -> None:
    sources = [found["src"] for found in page.named("img")]
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in sources)


def test_provenance_is_complete(page: Page) -> None:
    for words in (
        "9f2c41d0",
        "b41fe0c2",
        "64,912",
        "stem, middle, top",
        "unfreeze-pets, version 3",
        "tensorflow",
    ):
        assert words in page.text


@pytest.mark.parametrize(
    ("verdict", "gain", "words"),
    [
        ("helps", Interval(0.02, 0.01, 0.03), "Transfer gains 2.0 points"),
        ("no difference", Interval(0.001, -0.01, 0.012), "do not differ significantly"),
        ("negative transfer", Interval(-0.031, -0.05, -0.01), "transfer costs 3.1 points"),
    ],
)
def test_the_verdict_is_written_out(verdict: Any, gain: Interval, words: str, tmp_path: Path) -> None:
    known = finished()
    assert known.outcome is not None
    changed = replace(known.outcome, verdict=verdict, gain=gain)
    assert words in report(replace(known, outcome=changed), tmp_path).text


def test_no_verdict_without_a_baseline(tmp_path: Path) -> None:
    known = finished()
    assert known.outcome is not None
    bare = replace(known.outcome, verdict=None, gain=None, scratch_test_accuracies=(), scratch_trials=0)
    words = report(replace(known, outcome=bare), tmp_path).text
    assert "No verdict: no baseline was run" in words
    assert "Transfer helps" not in words


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    known = finished()
    assert known.outcome is not None
    hostile = replace(
        known,
        name=HOSTILE,
        task=replace(known.task, name=HOSTILE, source=HOSTILE, classes=(HOSTILE, "b" * 400, "\udcff")),
        backbone=replace(known.backbone, name=HOSTILE, blocks=(HOSTILE, "b", "c")),
        config={HOSTILE: HOSTILE},
        trials=tuple(
            replace(
                t, params={**t.params, HOSTILE: HOSTILE}, reason=HOSTILE, error=HOSTILE, stages={HOSTILE: 1.0}
            )
            for t in known.trials
        ),
        importances={HOSTILE: 1.0},
        edges=(HOSTILE,),
        stopped=HOSTILE,
        storage=HOSTILE,
        outcome=replace(
            known.outcome,
            params={HOSTILE: HOSTILE},
            examples=(ErrorExample(PNG, HOSTILE, "b", 0.5),),
            model_name=HOSTILE,
        ),
    )
    read = report(hostile, tmp_path)
    assert len(read.scripts) == len(FIGURES - {"landscape"}) + 3
    assert not [found for _, found in read.elements if "onerror" in found]
    assert "alert(1)" in read.text
    assert "{{ 7*7 }}" in read.text
    for key in read.drawn:
        assert read.figure(key)


def test_passwords_are_left_out(tmp_path: Path) -> None:
    secret = "postgresql://ada:hunter2@db:5432/runs"
    known = finished(tracking_uri=secret, config={"tracking_uri": secret, "ledger": secret})
    failed = replace(known.trials[6], error=f"OperationalError: {secret} is down")
    known = replace(known, trials=(*known.trials[:6], failed, *known.trials[7:]))
    page = report(known, tmp_path)
    assert "hunter2" not in page.html
    assert "postgresql://ada:***@db:5432/runs" in page.text


@pytest.mark.parametrize(("trials", "epochs"), [(200, 20), (8, 3000)])
def test_the_report_stays_small(trials: int, epochs: int, tmp_path: Path) -> None:
    page = report(finished(trials, epochs), tmp_path)
    assert len(page.html.encode()) < 5_000_000
    curves = next(
        part["values"] for part in page.figure("curves")["data"] if len(part.get("values", [])) > trials
    )
    assert len(curves) <= 20_000
    assert max(row["epoch"] for row in curves) == epochs


def failed_only(record: SearchRecord) -> SearchRecord:
    lost = [
        replace(t, state="failed", value=None, epochs=(), reason="out_of_memory", stages={})
        for t in record.trials
    ]
    return replace(record, trials=tuple(lost), importances={})


def diverged(record: SearchRecord) -> SearchRecord:
    nothing = tuple(
        replace(e, val_accuracy=math.nan, val_loss=math.inf, train_loss=math.nan) for e in curve(0.5, 3)
    )
    trials = tuple(
        replace(t, state="pruned", reason="diverged", value=math.nan, epochs=nothing) for t in record.trials
    )
    return replace(record, trials=trials, importances={"learning_rate": math.nan})


def running(record: SearchRecord) -> SearchRecord:
    trials = tuple(
        replace(t, state="running", value=None, epochs=t.epochs[:1], stages={}) for t in record.trials
    )
    return replace(record, trials=trials, importances={})


PARTIAL = {
    "no trial": (search(0), "No trial has finished yet"),
    "one trial": (search(1), "Best so far: trial 0 of 1 trial"),
    "all failed": (failed_only(search(4)), "All 4 trials failed"),
    "all diverged": (diverged(search(3)), "No trial has reached a value yet"),
    "all running": (running(search(2)), "No trial has finished yet"),
    "no importances": (replace(search(12), importances={}), "Importances need several finished trials"),
    "no parameters": (replace(search(1), trials=(replace(trial(0), params={}),)), "without parameters"),
    "equal values": (
        replace(search(), trials=tuple(replace(trial(n), value=1.0) for n in (0, 1, 2))),
        "100.0 %",
    ),
    "stopped": (search(6, stopped="converged", requested=24), "ended after 6 of 24 trials, because"),
    "interrupted": (search(6, requested=24), "6 of 24 trials have finished"),
    "no outcome": (search(), "The test images have not been used yet"),
}


@pytest.mark.parametrize("case", PARTIAL, ids=str)
def test_partial_data_still_makes_a_report(case: str, tmp_path: Path) -> None:
    record, words = PARTIAL[case]
    read = report(record, tmp_path)
    assert words in read.text
    assert read.ids >= SECTIONS | ALWAYS
    assert read.drawn < FIGURES


def test_the_outcome_alone_is_enough(tmp_path: Path) -> None:
    """The ledger may have lost the winner's trial although the model exists."""
    known = replace(finished(), trials=(), importances={})
    assert "95.4%" in report(known, tmp_path).text


def test_for_a_minimised_metric_lower_is_better(tmp_path: Path) -> None:
    trials = tuple(replace(t, value=None if t.value is None else 1 - t.value) for t in search().trials)
    known = search(trials=12, metric="val_loss", direction="minimize")
    read = report(replace(known, trials=trials), tmp_path)
    best = min(t.value for t in trials if t.value is not None)
    assert "lower is better" in read.text
    assert f"{best:.4g}" in read.text.split("How the search went")[0]
    assert "%" not in read.text.split("How the search went")[0]


def test_a_hundred_classes_with_long_names(tmp_path: Path) -> None:
    names = tuple(f"{number} " + "very long name " * 20 for number in range(100))
    rows = tuple(tuple(9 if i == j else int((i + 3) % 100 == j) for j in range(100)) for i in range(100))
    known = finished()
    assert known.outcome is not None
    known = replace(
        known,
        task=replace(known.task, classes=names),
        outcome=replace(known.outcome, confusion=rows, examples=()),
    )
    read = report(known, tmp_path)
    cells = next(part["values"] for part in read.figure("confusion")["data"] if "values" in part)
    assert len(cells) == 200
    assert sum(cell["images"] for cell in cells) == 1000
    assert max(len(cell["true"]) for cell in cells) <= 40
    assert len(read.html) < 2_500_000


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_report(finished(), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OSError, match=r"report\.html"):
        write_report(search(1), tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_package_is_light_to_import() -> None:
    heavy = ("altair", "vl_convert", "jinja2")
    code = f"import sys, search.report.formats; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
PROBE = """
<script>
(async () => {
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  while (!("ready" in document.documentElement.dataset)) await wait(20);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const fire = (target, type, x, y) =>
    target.dispatchEvent(new PointerEvent(type, { bubbles: true, clientX: x, clientY: y, pointerType: "mouse" }));
  const middle = (target) => {
    const box = target.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };
  const hidden = () => all("#trial-table tbody tr").filter((row) => row.hidden).length;
  const found = { errors: all(".empty").map((place) => place.textContent) };
  found.marks = Object.fromEntries(all("[id^=plot-]").map((plot) => [
    plot.id.slice(5), plot.querySelectorAll("svg .role-mark path, svg .role-mark text").length]));
  found.width = innerWidth;
  found.overflow = document.documentElement.scrollWidth > innerWidth;
  found.outside = all("body *").filter((place) => !place.closest(".plot, .scroll, .contents, .skip, .card, svg"))
    .filter((place) => place.getBoundingClientRect().right > innerWidth + 1)
    .map((place) => place.outerHTML.slice(0, 90));
  found.cut = all("svg .mark-text text").filter((place) => !place.closest("#plot-parallel"))
    .filter((place) => place.getBoundingClientRect().right > place.closest("svg").getBoundingClientRect().right + 1)
    .map((place) => place.textContent);
  found.requests = performance.getEntriesByType("resource").map((entry) => entry.name)
    .filter((name) => !name.startsWith("data:"));
  found.unreachable = all("button, a, summary, [data-by-trial], code")
    .filter((place) => !place.hidden && place.tabIndex < 0).map((place) => place.outerHTML.slice(0, 90));

  const point = all("#plot-landscape .mark-symbol path")[2];
  fire(point, "pointermove", ...middle(point));
  await wait(100);
  found.lit = all("tr.lit").map((row) => row.dataset.trial);
  found.card = document.querySelector(".card").innerText;
  found.thick = all("#plot-curves path[stroke-width='4.5']").length;

  document.querySelector("#plot-history").focus();
  for (let press = 0; press < 2; press += 1)
    document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
  await wait(100);
  found.afterKeys = all("tr.lit").map((row) => row.dataset.trial);

  const grip = document.querySelector("#plot-parallel .grip_0 path");
  const [x, y] = middle(grip);
  fire(grip, "pointerdown", x, y);
  fire(window, "pointermove", x, y + 60);
  fire(window, "pointerup", x, y + 60);
  await wait(100);
  found.outsideBrush = hidden();
  document.querySelector("#show-all").click();
  await wait(100);
  found.afterShowAll = hidden();
  document.querySelector("#show-best").click();
  await wait(100);
  found.afterShowBest = hidden();

  const head = all("#trial-table thead button")[2];
  head.click();
  head.click();
  found.sorted = all("#trial-table tbody tr").map((row) => row.cells[2].dataset.key);
  parent.document.body.append(Object.assign(parent.document.createElement("pre"), {
    id: "found", textContent: JSON.stringify(found) }));
})();
</script>
"""


def browse(file: Path, folder: Path, *options: str) -> tuple[str, list[str]]:
    """Return the page after its scripts have run without a network, and their console output."""
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync --enable-logging=stderr"
    flags += " --disable-background-networking --disable-component-update --virtual-time-budget=20000"
    offline = "--host-resolver-rules=MAP * ~NOTFOUND"
    command = [str(CHROMIUM), *flags.split(), offline, f"--user-data-dir={folder}", *options, file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome on the path to open the report with")
@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390], ids=["wide", "phone"])
def test_a_browser_draws_and_links_the_figures(width: int, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(finished(24, importance_intervals={"learning_rate": Interval(0.6, 0.3, 0.9)}), path)
    # No window of Chromium is as narrow as a phone, but a frame may be.
    framed = escape(path.read_text("utf-8") + PROBE)
    style = f"border: 0; width: {width}px; height: 900px"
    path.write_text(
        f'<!doctype html><meta charset="utf-8"><iframe style="{style}" srcdoc="{framed}"></iframe>', "utf-8"
    )
    document, console = browse(path, tmp_path / "profile", "--window-size=1400,1000", "--dump-dom")
    assert console == []
    found = json.loads(unescape(re.findall(r'<pre id="found">(.*?)</pre>', document, re.DOTALL)[0]))
    assert found["errors"] == []
    assert set(found["marks"]) == FIGURES
    assert min(found["marks"].values()) >= 3
    assert found["width"] == width
    assert not found["overflow"]
    for nothing in ("outside", "cut", "requests", "unreachable"):
        assert found[nothing] == [], nothing
    assert len(found["lit"]) == found["thick"] == 1
    assert found["card"].startswith(f"Trial {found['lit'][0]}")
    assert found["afterKeys"] == [str((int(found["lit"][0]) + 2) % 24)]
    assert 0 < found["outsideBrush"] < 24
    assert found["afterShowAll"] == 0
    assert 12 <= found["afterShowBest"] < 24
    values = [float(value) for value in found["sorted"] if value]
    assert values == sorted(values, reverse=True)
    assert found["sorted"][-1] == ""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome on the path to print the report with")
@pytest.mark.slow
def test_the_report_prints_on_a_few_pages(tmp_path: Path) -> None:
    path, printed = tmp_path / "report.html", tmp_path / "report.pdf"
    write_report(finished(24), path)
    _, console = browse(path, tmp_path / "profile", "--no-pdf-header-footer", f"--print-to-pdf={printed}")
    assert console == []
    pages = len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes()))
    assert 6 <= pages <= 14
