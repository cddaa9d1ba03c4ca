"""The first minute: what a newcomer does and sees, whether it is honest, what is fetched, and its picture."""

import os
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import settle
from tests.browser.test_files import ask, drop

pytestmark = pytest.mark.browser

ROWS = [
    ("Wrote the report on the wind turbines.", "Ada", "done"),
    ("The invoice for the new office chairs is still open.", "Ben", "open"),
    ("Ordered coffee and tea for the kitchen.", "Ada", "done"),
    ("The printer on the second floor is out of paper, again.", "Chi", "open"),
    ("Interview with the new engineer on Friday.", "Ben", "open"),
]
UNRELATED = {"p5": 0.7012, "p50": 0.77, "p95": 0.8349}


def described(page, **about):
    """Let the server say something else of its model."""

    def answer(route):
        found = route.fetch()
        route.fulfill(response=found, json=found.json() | about)

    page.route(re.compile(r"(?<!reranker)/info$"), answer)


def test_a_newcomer_drops_a_table_and_finds_a_row_by_asking_in_another_language(new_page, server):
    page = new_page(server.url, height=860)
    page.goto(server.url)
    expect(page.locator("#tab-search")).to_have_attribute("aria-selected", "true")
    drop(
        page,
        "tasks.csv",
        "task,who,state\n" + "".join(f'"{task}",{who},{state}\n' for task, who, state in ROWS),
    )
    expect(page.locator("#find-about")).to_have_text("tasks.csv: 5 passages")
    expect(page.locator("#find-column option:checked")).to_have_text("task")
    page.locator("#find-query").fill("哪张账单还没有付？")  # which bill is not paid yet
    page.locator("#find-query").press("Enter")
    best = page.locator("#hits li").first
    expect(best.locator(".passage")).to_have_text("The invoice for the new office chairs is still open.")
    expect(best.locator(".about")).to_have_text("row 2who: Benstate: open")
    expect(best.locator("mark").first).to_be_visible()


def test_the_demo_model_is_called_what_it_is(new_page, server):
    page = new_page(server.url)
    described(page, demo=True, unrelated_cosine=UNRELATED)
    page.goto(server.url)
    expect(page.locator("#demo")).to_have_text(
        "Demo: multilingual-e5-small, 384 dimensions, dense only. Run make model for BGE-M3."
    )
    expect(page.locator("#demo code")).to_have_text("make model")
    expect(page.locator("h1")).to_have_text("multilingual-e5-small embeddings (demo)")
    expect(page).to_have_title("multilingual-e5-small embeddings (demo)")
    ask(page, "bread")
    said = (
        "Compare scores; do not read them as percentages. "
        "With this model unrelated texts usually score 0.70 to 0.83 (dense)."
    )
    expect(page.locator("#find [data-scores]")).to_have_text(said)
    expect(page.locator("#demo-prefixes")).to_contain_text("“query: ” and “passage: ”")
    page.locator("#tab-similarity").click()
    expect(page.locator("#similarity [data-scores]")).to_have_text(said)
    page.locator("#language").click()
    expect(page.locator("#demo")).to_contain_text("演示模型：multilingual-e5-small，384 维，仅稠密向量。")
    expect(page.locator("#similarity [data-scores]")).to_contain_text("0.70 到 0.83")


def test_another_model_is_no_demo(new_page, server):
    page = new_page(server.url)
    described(page, demo=False, unrelated_cosine=None)
    page.goto(server.url)
    ask(page, "bread")
    expect(page.locator("#find [data-scores]")).to_have_text(
        "Compare scores; do not read them as percentages."
    )
    expect(page.locator("h1")).to_have_text("multilingual-e5-small embeddings")
    for name in ("demo", "demo-prefixes"):
        expect(page.locator(f"#{name}")).to_be_hidden()


def test_search_speaks_chinese(open_page):
    page = open_page("search", locale="zh-CN")
    page.locator("#find-questions button").first.click()
    settle(page)
    expect(page.locator("#find-found")).to_have_text("48 个段落。")
    expect(page.locator("#find-questions button").first).to_have_attribute("title", "韩语")
    own = "#find :is(button:not([lang]), legend, label, .hint, .source, .actions)"
    for text in page.locator(own).all_inner_texts():
        assert not text.strip() or any("\u4e00" <= character <= "\u9fff" for character in text), text
    page.locator("#language").click()
    expect(page.locator("#find-found")).to_contain_text("48 passages.")
    expect(page.locator("#find-about")).to_have_text("Example: 48 passages")


def test_what_a_view_fetches_is_small_and_fetched_once_it_is_opened(new_page, server):
    page = new_page(server.url)
    fetched = {}

    def count(response):
        path = response.url.removeprefix(server.url)
        if path == "/" or path.startswith("/assets/"):
            fetched[path] = len(response.body())

    page.on("response", count)
    page.goto(server.url)
    settle(page)
    page.wait_for_load_state("networkidle")
    opening = dict(fetched)
    assert sum(opening.values()) < 120 * 1024, opening
    assert not any(
        name in path for path in opening for name in ("zh.js", "similarity.js", "map.js", "hyparquet")
    )
    for view in ("similarity", "map"):
        before = set(fetched)
        page.locator(f"#tab-{view}").click()
        settle(page)
        added = {path: size for path, size in fetched.items() if path not in before}
        assert f"/assets/page/{view}.js" in added
        assert sum(added.values()) < 80 * 1024, added


def test_the_keyboard_searches_and_reaches_each_hit(open_page):
    page = open_page("search")
    page.locator("#find-query").focus()
    page.keyboard.type("bread")
    page.keyboard.press("Enter")
    expect(page.locator("#hits li")).to_have_count(10)
    settle(page)
    focused = "(e => e.id || e.className || e.tagName)(document.activeElement)"
    names = [""]
    while names[-1] != "BODY":
        page.keyboard.press("Tab")
        names.append(page.evaluate(focused))
    assert names.count("plain carry") == 7
    assert {"recorded-open", "hits-more", "SUMMARY"} <= set(names)


def test_its_picture_is_small(new_page, server, tmp_path):
    """`make screenshot` keeps the picture, for the README."""
    page = new_page(server.url, height=860)
    described(page, demo=True, unrelated_cosine=UNRELATED)
    page.goto(server.url)
    ask(page, "Come si prepara il pane?")
    expect(page.locator("#hits li:has(mark)")).to_have_count(3)
    page.evaluate("document.activeElement.blur()")
    picture = Path(page.screenshot(path=tmp_path / "page.png") and tmp_path / "page.png")
    assert 20_000 < picture.stat().st_size < 200_000
    if kept := os.environ.get("PAGE_SCREENSHOT"):
        shutil.copy(picture, kept)
