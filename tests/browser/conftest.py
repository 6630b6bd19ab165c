"""A stack on SQLite as `cotpipe up` makes it, and a browser that looks at it."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.helpers.polling import PATIENCE
from tests.helpers.stacks import Stack

CHROMIUM = shutil.which("chromium")
OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip


@pytest.fixture(scope="session")
def stack(tiny_student, tmp_path_factory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("browser"), tiny_student)
    stack.up()
    yield stack
    stack.down()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium here (Debian's package)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, stack: Stack) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(1000 * PATIENCE)
    expect.set_options(timeout=1000 * PATIENCE)
    page.goto(stack.address)
    page.get_by_placeholder("admin:pass").fill(stack.password)
    page.get_by_role("button", name="Login").click()
    page.wait_for_url(re.compile("^(?!.*/login)"))
    yield page
    page.close()


@pytest.fixture
def keep(tmp_path):
    """Keep a screenshot: in docs/ where COTPIPE_SCREENSHOTS says so, else beside the test's files."""
    folder = Path(os.environ.get("COTPIPE_SCREENSHOTS", tmp_path))

    def shoot(page: Page, name: str) -> None:
        page.screenshot(path=folder / f"{name}.png", animations="disabled")

    return shoot
