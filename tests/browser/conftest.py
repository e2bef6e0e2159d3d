"""A real Chromium for the console's tests: the system's own, driven by Playwright. Each test gets a page that notes
what must not happen: errors in its console, dialogs of scripts, and requests to anybody but its server."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.parts import missing
from tests.pipeline import Pipeline

CHROMIUM = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 15_000


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        missing("Chromium is not installed: apt-get install chromium")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=[*FLAGS, *sandbox])
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, and what it did that it must not do."""

    page: Page
    origin: str
    wrong: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("console", self.hear)
        self.page.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))
        self.page.on("request", self.check)

    def hear(self, said: Any) -> None:
        if said.type in ("error", "warning"):
            self.wrong.append(said.text)

    def check(self, request: Any) -> None:
        if not request.url.startswith(f"{self.origin}/"):
            self.wrong.append(f"request to {request.url}")

    def unexpected_dialog(self, dialog: Any) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@pytest.fixture
def contexts(chromium: Browser) -> Iterator[Callable[..., BrowserContext]]:
    made: list[BrowserContext] = []

    def new(**options: Any) -> BrowserContext:
        made.append(chromium.new_context(**{"reduced_motion": "reduce", **options}))
        made[-1].set_default_timeout(PATIENCE_MS)
        return made[-1]

    yield new
    for context in made:
        context.close()


@pytest.fixture
def watched(contexts: Callable[..., BrowserContext], pipeline: Pipeline) -> Iterator[Watched]:
    """The page of this test, at no address yet. What it did wrong fails the test at its end."""
    one = Watched(contexts().new_page(), pipeline.search_api)
    one.watch()
    yield one
    assert one.wrong == []


@pytest.fixture
def console(watched: Watched, pipeline: Pipeline) -> Page:
    """The console, open in Chromium. Dialogs are the page's own questions only where a test answers them."""
    watched.page.goto(f"{pipeline.search_api}/")
    return watched.page
