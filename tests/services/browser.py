"""Headless Chromium for tests that look at pages as a person does."""

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
"""For a page to show something: machines may be slow, and who waits for an element waits no longer than it takes."""

PICTURES = "UNFREEZE_SCREENSHOTS"
"""Names the folder for the documentation's screenshots; without it none are made."""

_USED_BEFORE = """
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
localStorage.setItem('mlflow.workflowType_v1', '"machine_learning"');
"""
"""MLflow as it is after a first visit: its assistant was closed, and *Model training* chosen on the top left."""

_LARGEST = 200_000


@contextmanager
def chromium() -> Iterator[BrowserContext]:
    """A browser that speaks with this machine alone."""
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
    """Load a page anew, also where only the part behind # differs."""
    page.goto("about:blank")
    page.goto(address, wait_until="domcontentloaded")


def picture(page: Page, name: str, settle: float = 1.5) -> None:
    """A screenshot for the documentation, if asked for, ``settle`` seconds after what was waited for is there."""
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
