"""Headless Chromium beside the real server."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.server import Server, serving

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
KEY = "the-key"
# The browser logs refusals that a test asks for; they are none of the page's faults.
REFUSED = (
    "400 (BAD REQUEST)",
    "401 (UNAUTHORIZED)",
    "404 (NOT FOUND)",
    "422 (UNPROCESSABLE ENTITY)",
    "503 (SERVICE UNAVAILABLE)",
    "net::ERR_CONNECTION_REFUSED",
)

expect.set_options(timeout=30_000)


@pytest.fixture(scope="session")
def server(tmp_path_factory, demo_folder) -> Iterator[Server]:
    """The demo model: dense vectors only, no key."""
    with serving(tmp_path_factory.mktemp("log") / "server.log", EMBED_MODEL_PATH=str(demo_folder)) as server:
        yield server


@pytest.fixture(scope="session")
def full_server(tmp_path_factory, demo_with_heads) -> Iterator[Server]:
    """Dense vectors, lexical weights and multi-vectors, behind a key."""
    environ = {"EMBED_MODEL_PATH": str(demo_with_heads), "EMBED_PRECISION": "fp32", "EMBED_API_KEYS": KEY}
    with serving(tmp_path_factory.mktemp("log") / "server.log", **environ) as server:
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "these tests need Chromium: on Debian, apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser):
    """Pages that must ask nobody but the server they were opened on, and log no error."""
    asked, complaints, contexts = [], [], []

    def make(url: str, *, width: int = 1280, height: int = 1600, **options) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append((context, url))
        page = context.new_page()
        context.on("request", lambda request: asked.append((request.url, url)))
        context.on(
            "console",
            lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield make
    for context, _ in contexts:
        context.close()
    assert asked
    elsewhere = [url for url, home in asked if not url.startswith((home, "data:", "blob:"))]
    assert not elsewhere
    assert not [
        text for text in complaints if not any(refused.lower() in text.lower() for refused in REFUSED)
    ]


@pytest.fixture
def page(new_page, server) -> Page:
    return new_page(server.url)


@pytest.fixture
def open_page(new_page, server):
    """The page at / once the example of a view is there: of search, similarity or map."""

    def make(view: str = "similarity", of: Server = server, **options) -> Page:
        page = new_page(of.url, **options)
        if of is not server:
            page.add_init_script(f"sessionStorage.setItem('key', '{KEY}')")
        page.goto(f"{of.url}/#{view}")
        settle(page)
        return page

    return make


def settle(page: Page) -> None:
    """Wait until nothing is computed any more."""
    expect(page.locator("#status-model")).not_to_have_text("–")
    if page.locator("#find").is_visible():
        expect(page.locator("#find-about")).not_to_be_empty()
        for name in ("find", "hits", "carried"):
            expect(page.locator(f"#{name}-cancel")).to_be_hidden()
    elif page.locator("#map").is_visible():
        expect(page.locator("#groups li").first).to_be_visible()
        expect(page.locator("#map-cancel")).to_be_hidden()
    else:
        expect(page.locator("#heat [role=grid]")).to_be_visible()
        expect(page.locator("#compare-cancel")).to_be_hidden()
        expect(page.locator("#why-parts .part").last).to_be_visible()
        expect(page.locator("#heat")).not_to_have_attribute("aria-busy", "true")
        expect(page.locator("#why-parts")).not_to_have_attribute("aria-busy", "true")
