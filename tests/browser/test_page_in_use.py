"""The page at /: its status, its key, its sentences, its languages, and who can use it."""

import threading

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import KEY, settle
from tests.server import serving

pytestmark = pytest.mark.browser


def complete(page):
    """No sentence lacks a value."""
    text = page.locator("body").inner_text()
    assert "undefined" not in text
    assert "NaN" not in text
    assert "{" not in text


@pytest.mark.parametrize("place", ["", "#search", "#similarity", "#map"])
def test_it_opens_at_its_top(new_page, server, place):
    page = new_page(server.url, height=500)
    page.goto(f"{server.url}/{place}")
    settle(page)
    page.wait_for_timeout(500)  # what a browser scrolls to, it scrolls to once all is loaded
    assert page.evaluate("scrollY") == 0
    assert page.evaluate("document.documentElement.scrollHeight > innerHeight"), "it could not have scrolled"


def test_the_strip_says_what_is_served(open_page, server):
    page = open_page()
    expect(page.locator("#status-state")).to_have_text("up")
    expect(page.locator("#status-model")).to_have_text("multilingual-e5-small")
    info = server.post("/api/show", {})[1]["model_info"]
    for name in ("pooling", "precision", "engine"):
        expect(page.locator(f"#status-{name}")).to_have_text(info[name])
    expect(page.locator("#status-waiting")).to_have_text("0")
    for path in ("/apidocs/", "/redoc", "/metrics"):
        assert page.request.get(server.url + page.locator(f'nav a[href="{path}"]').get_attribute("href")).ok
    page.locator("#pooling-cls").check(force=True)  # makes tokens of this page's own
    expect(page.locator("#status-speed")).not_to_have_text("0")
    expect(page.locator("#status-speed")).not_to_have_text("–")


def test_a_newcomer_sees_what_is_near_and_why(open_page, tmp_path):
    page = open_page()
    sentence = page.locator("#nearest-text")
    expect(sentence).to_contain_text("“什么是机器学习？” is most similar to “What is machine learning?”")
    expect(sentence).to_contain_text("least similar to “Demain, il va pleuvoir")
    expect(page.locator("#query option:checked")).to_have_text("1 什么是机器学习？")
    expect(page.locator("#passage option:checked")).to_have_text("2 What is machine learning?")
    expect(page.locator("#why-parts .token small")).not_to_have_count(0)
    complete(page)
    page.screenshot(path=tmp_path / "light.png", full_page=True)


def test_the_key_is_asked_for_and_kept_for_the_tab(new_page, full_server):
    page = new_page(full_server.url)
    page.goto(f"{full_server.url}/#similarity")
    expect(page.locator("#key")).to_be_focused()
    expect(page.locator("#key-say")).to_contain_text("asks for an API key")
    page.keyboard.type("another")
    page.keyboard.press("Enter")
    expect(page.locator("#key-say")).to_contain_text("does not take this key")
    page.locator("#key").fill(KEY)
    page.locator("#key").press("Enter")
    settle(page)
    expect(page.locator("#key-form")).to_be_hidden()
    assert page.evaluate("JSON.stringify(localStorage)").find(KEY) < 0
    assert not page.context.cookies()
    page.locator("#compare-export summary").click()
    assert KEY not in page.content()
    page.reload()
    settle(page)
    other = page.context.new_page()
    other.goto(full_server.url)
    expect(other.locator("#key-form")).to_be_visible()
    page.locator("#key-forget").click()
    expect(page.locator("#key-form")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_busy_server_is_waited_for(open_page, demo_folder, tmp_path):
    environ = {"EMBED_MODEL_PATH": str(demo_folder), "EMBED_QUEUE_TOKENS": "300"}
    with serving(tmp_path / "server.log", **environ) as busy:
        page = open_page(of=busy)
        enough = threading.Event()

        def fill():  # one is computed, one waits and fills the queue, the others are refused and try again
            while not enough.is_set():
                busy.post("/api/embed", {"input": "word " * 280})

        filling = [threading.Thread(target=fill, daemon=True) for _ in range(4)]
        for thread in filling:
            thread.start()
        expect(page.locator("#status-state")).to_have_text("not ready")
        expect(page.locator("#status-waiting")).not_to_have_text("0")
        page.locator("#pooling-cls").check(force=True)
        expect(page.locator("#compare-say")).to_contain_text("The server is busy: trying again in")
        enough.set()
        for thread in filling:
            thread.join()
        settle(page)
        expect(page.locator("#compare-say")).to_be_hidden()
        busy.stop()
        expect(page.locator("#status-state")).to_have_text("no answer")
        page.locator("#lines").fill("one\ntwo")
        page.locator("#compare-form .first").click()
        expect(page.locator("#compare-say")).to_have_text("The server does not answer. Is it running?")


def test_what_is_too_long_is_said(open_page):
    page = open_page()
    page.locator("#lines").fill(f"short\n{'word ' * 600}")
    page.locator("#compare-form .first").click()
    notice = page.locator("#compare-say")
    expect(notice).to_contain_text("Texts longer than 512 tokens, cut off at that length: 1.")
    expect(notice).to_contain_text("The map can split a document into passages")
    page.locator("#lines").fill("only one")
    page.locator("#compare-form .first").click()
    expect(page.locator("#compare-say")).to_have_text("Enter at least two lines to compare.")


def test_long_texts_are_explained_when_asked(open_page):
    page = open_page()
    page.locator("#lines").fill(f"short words\n{'many words ' * 40}")
    page.locator("#compare-form .first").click()
    page.locator("#why-parts").get_by_role("button", name="Embed 42 texts").click()
    expect(page.locator("#why-parts small")).to_have_count(42)
    expect(page.locator("#why-parts .hint")).to_contain_text("split into at most 40 pieces")


def test_it_speaks_chinese(open_page, tmp_path):
    page = open_page(locale="zh-CN")
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    expect(page.locator("#tab-map")).to_have_text("地图")
    expect(page.locator("#nearest-text")).to_contain_text("最相似")
    complete(page)
    page.screenshot(path=tmp_path / "zh.png", full_page=True)
    page.locator("#language").click()
    settle(page)
    expect(page.locator("#tab-map")).to_have_text("Map")
    expect(page.locator("#why-parts h3").first).to_have_text("Leave one word out")
    page.reload()
    settle(page)
    expect(page.locator("#nearest-text")).to_contain_text("is most similar to")
    expect(page.locator("html")).to_have_attribute("lang", "en")


@pytest.mark.parametrize("view", ["search", "similarity", "map"])
@pytest.mark.parametrize("heads", [False, True], ids=["dense", "heads"])
def test_axe_finds_nothing_in_any_theme_or_width(open_page, server, full_server, tmp_path, view, heads):
    page = open_page(view, full_server if heads else server)
    if view == "search":
        page.locator("#find-query").fill("how to bake bread")
        page.locator("#find-query").press("Enter")
        expect(page.locator("#hits mark").first).to_be_visible()
    page.locator("details:visible summary").click()
    for width, scheme in ((1280, "light"), (1280, "dark"), (360, "dark"), (360, "light")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=tmp_path / f"{view}-{scheme}-{width}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if view == "similarity":
            assert page.locator("#heat tbody th").first.bounding_box()["width"] < width / 2
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def test_the_keyboard_reaches_everything(open_page):
    page = open_page()
    page.locator("#tab-similarity").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tab-map")).to_be_focused()
    expect(page.locator("#plot")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#lines")).to_be_visible()
    focused = "(e => e.id || e.dataset.at || e.dataset.row || e.name || e.tagName)(document.activeElement)"
    names = [""]
    while names[-1] != "BODY":
        page.keyboard.press("Tab")
        names.append(page.evaluate(focused))
    # Once through the page: the heat map is one stop for its labels and one for its cells.
    for name in (
        "lines",
        "compare-example",
        "score",
        "pooling-mean",
        "order",
        "0",
        "query",
        "passage",
    ):
        assert name in names, name
    assert sum(" " in name for name in names) == 1
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    page.locator("#tab-similarity").focus()
    page.keyboard.press("Tab")
    assert page.evaluate(outline) != "none"
