"""Start headless Chromium for tests that look at pages as a user does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import BrowserContext, Page, Route, expect, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
]
SECONDS = 90
"""Time limit for an element of a page to appear. Waiting ends as soon as it appears, so a long limit costs nothing."""

PICTURES = "UNFREEZE_SCREENSHOTS"
"""Environment variable with the folder for screenshots of the documentation. Without it, none are taken."""

_USED_BEFORE = """
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
localStorage.setItem('mlflow.workflowType_v1', '"machine_learning"');
"""
"""State of MLflow's pages after a first visit: the assistant is closed, and *Model training* is selected."""

_LARGEST = 200_000


@contextmanager
def chromium() -> Iterator[BrowserContext]:
    """Start a browser that can only reach this machine."""
    program = shutil.which("chromium")
    assert program is not None, "these tests need Chromium on PATH (Debian: apt-get install chromium)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        context = browser.new_context(viewport={"width": 1600, "height": 900})
        context.set_default_timeout(1000 * SECONDS)
        expect.set_options(timeout=1000 * SECONDS)
        context.route("**/*", _stay)
        context.add_init_script(_USED_BEFORE)
        try:
            yield context
        finally:
            browser.close()


def visit(page: Page, address: str) -> None:
    """Load a page completely, even if only the part after # differs from the current address."""
    page.goto("about:blank")
    page.goto(address, wait_until="domcontentloaded")


def picture(page: Page, name: str, settle: float = 1.5) -> None:
    """Take a screenshot for the documentation, if :data:`PICTURES` is set, after ``settle`` more seconds."""
    folder = os.environ.get(PICTURES)
    if not folder:
        return
    page.mouse.move(0, 0)
    page.wait_for_timeout(1000 * settle)
    path = Path(folder) / f"{name}.png"
    page.screenshot(path=path, animations="disabled")
    with Image.open(path) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < _LARGEST, path


def _stay(route: Route) -> None:
    address = route.request.url
    if address.startswith(("http://127.0.0.1:", "data:", "blob:")):
        route.continue_()
    else:
        route.abort()
