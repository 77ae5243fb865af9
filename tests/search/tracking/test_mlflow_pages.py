"""MLflow's UI in headless Chromium shows what ``unfreeze ui`` opens, and what can be reached from there.

``UNFREEZE_SCREENSHOTS=docs/images`` also makes the pictures of the documentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from browser import chromium, picture, visit
from finished_search import MODEL, NAME, FinishedSearch, make_finished_search
from playwright.sync_api import BrowserContext, Page, expect

from search.records.record import TrialRecord

pytestmark = pytest.mark.slow
TRAINING = "?workflowType=machine_learning"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinishedSearch]:
    made = make_finished_search(tmp_path_factory.mktemp("a person's runs ü"))
    yield made
    made.end()


@pytest.fixture(scope="module")
def browser(site: FinishedSearch) -> Iterator[BrowserContext]:
    with chromium() as context:
        yield context


@pytest.fixture
def page(browser: BrowserContext) -> Iterator[Page]:
    """A new tab, with the browser's storage as the previous tab left it."""
    tab = browser.new_page()
    yield tab
    tab.close()


def expect_runs(page: Page, count: int) -> list[str]:
    """Return the names of ``count`` runs in the table, from top to bottom."""
    rows = page.locator(".ag-pinned-left-cols-container [role=row]")
    expect(rows.get_by_role("link")).to_have_count(count)
    found = rows.evaluate_all(
        "rows => rows.map(row => [+row.getAttribute('row-index'), row.querySelector('a').innerText.trim()])"
    )
    return [name for _, name in sorted(found)]


def best_first(site: FinishedSearch) -> list[TrialRecord]:
    return sorted(site.record.trials, key=lambda t: -(t.value or 0.0))


def test_the_page_that_opens_lists_the_trials_the_best_first(site: FinishedSearch, page: Page) -> None:
    visit(page, site.page("open "))
    trials = best_first(site)
    expect(page.get_by_text("best_val_accuracy").first).to_be_visible()
    for column in ("val_accuracy", "unfreeze_depth", "learning_rate", "head_units"):
        expect(page.locator(".ag-header").get_by_text(column, exact=True).first).to_be_visible()
    names = expect_runs(page, len(trials))
    assert names[0].startswith(f"{NAME} #{trials[0].number}: ")
    cells = page.locator("[role=gridcell][col-id='metrics.`best_val_accuracy`']").all_inner_texts()
    assert [float(c) for c in cells] == sorted((round(t.value or 0.0, 3) for t in trials), reverse=True)
    expect(page.get_by_text(f"Searches on {site.record.task.name}, made by unfreeze").first).to_be_visible()
    picture(page, "mlflow-trials")


def test_a_search_is_found_by_its_name_with_its_trials_below_it(site: FinishedSearch, page: Page) -> None:
    visit(page, site.page("open "))
    page.get_by_role("button", name="Trials, the best first").click()
    page.get_by_text("Searches, their trials below them").click()
    page.get_by_role("link", name=NAME, exact=True).wait_for()
    assert expect_runs(page, 1) == [NAME]
    parent = page.locator("[role=gridcell]", has=page.get_by_role("link", name=NAME, exact=True))
    parent.get_by_role("button").first.click()  # the plus before the name
    page.get_by_role("link", name=re.compile(f"^{NAME} #0: ")).wait_for()
    expect_runs(page, 1 + len(site.record.trials))
    picture(page, "mlflow-searches")


def test_learning_curves_lie_over_each_other(site: FinishedSearch, page: Page) -> None:
    visit(page, site.page("learning curves"))
    page.get_by_text("Trials compared").wait_for()
    axes = page.locator(".parcoords .axis .label, .parcoords text.label, .dimension .label")
    axes.first.wait_for()
    assert {"learning_rate", "unfreeze_depth"} <= set(axes.all_text_contents())
    lines = page.locator(".js-plotly-plot", has=page.locator(".scatterlayer .trace")).first
    lines.wait_for()
    learned = [t for t in site.record.trials if t.epochs]
    assert lines.locator(".scatterlayer .trace").count() >= len(learned)
    picture(page, "mlflow-curves", settle=4)


def test_selected_trials_are_compared_in_parallel_coordinates(site: FinishedSearch, page: Page) -> None:
    visit(page, site.page("open "))
    expect_runs(page, len(site.record.trials))
    page.locator(".ag-header input[type=checkbox]").first.check()
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_text(f"Comparing {len(site.record.trials)} Runs from 1 Experiment")).to_be_visible()
    axes = page.locator("svg .axis-title")
    axes.first.wait_for()
    assert {"learning_rate", "val_accuracy"} <= {text.strip() for text in axes.all_text_contents()}
    picture(page, "mlflow-compare", settle=2)
    page.get_by_text("Scatter Plot").click()
    expect(page.locator("text.ytitle", has_text="best_val_accuracy")).to_be_visible()


def test_a_trial_shows_its_description_and_its_curve(site: FinishedSearch, page: Page) -> None:
    winner = best_first(site)[0]
    visit(page, site.page("open "))
    page.get_by_role("link", name=re.compile(f"^{NAME} #{winner.number}: ")).click()
    expect(page.get_by_text(f"Trial {winner.number} of the search {NAME}")).to_be_visible()
    expect(page.get_by_text("The winner: test accuracy")).to_be_visible()
    page.get_by_role("tab", name="Model metrics").click()
    chart = page.get_by_text("val_accuracy", exact=True).first
    chart.wait_for()
    expect(page.get_by_text(re.compile("^cost_|^seconds_"))).to_have_count(0)  # they have a page of their own
    page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for()
    picture(page, "mlflow-trial", settle=3)


def test_the_report_is_shown_on_the_page_of_the_search(site: FinishedSearch, page: Page) -> None:
    visit(page, site.page("open "))
    page.get_by_role("link", name=re.compile(f"^{NAME} #0: ")).click()
    page.get_by_role("link", name=NAME, exact=True).click()  # the parent run
    expect(page.get_by_text("The winner is")).to_be_visible()
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("report.html").click()
    report = page.frame_locator("iframe").first
    expect(report.get_by_text(re.compile("The winner: trial"))).to_be_visible()


def test_the_model_shows_its_champion_and_its_origin(site: FinishedSearch, page: Page) -> None:
    # The registry tells of its new features when it is first visited.
    page.add_locator_handler(page.get_by_role("button", name="Try it now"), lambda button: button.click())
    visit(page, site.page("models:"))
    page.get_by_role("link", name=MODEL).first.click()
    expect(page.get_by_text("Classifies images into the 10 classes of digits")).to_be_visible()
    for alias in ("champion", "challenger"):
        expect(page.get_by_role("status", name=alias)).to_be_visible()
    outcome = site.record.outcome
    assert outcome is not None
    visit(page, f"{site.address}/#/models/{quote(MODEL)}/versions/{outcome.model_version}{TRAINING}")
    expect(page.get_by_text(f"Winner of the search {NAME}, trial {outcome.trial}")).to_be_visible()
    expect(page.get_by_role("status", name="champion")).to_be_visible()
    expect(page.get_by_role("link", name=re.compile(f"^{NAME} #{outcome.trial}: "))).to_be_visible()
    for tag in ("unfreeze.backbone_digest", "unfreeze.data_digest"):
        expect(page.get_by_text(tag, exact=True)).to_be_attached()
    picture(page, "mlflow-model")


def test_ctrl_c_ends_the_ui_and_all_its_processes(site: FinishedSearch) -> None:
    if site.process is None or site.process.poll() is not None:
        site.open()
    assert any("mlflow" in " ".join(p.cmdline()) for p in site.search.processes())
    assert site.interrupt() == 0
    assert site.search.processes() == []
