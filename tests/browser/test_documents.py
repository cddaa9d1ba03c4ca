"""Documents on the map: what is taken for one, how the server cuts it, what search shows of it."""

import re

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import settle

pytestmark = pytest.mark.browser

IS_DOCUMENT = """async ([name, text]) => (await import("/assets/page/passages.js")).isDocument(name, text)"""
FACTS = {
    "Bread": "Bread is baked from flour, water, salt and yeast, and the dough has to rest before 🍞 it goes "
    "into the hot oven.",
    "Rain": "Rain falls when the drops 🌧 in a cloud have grown too heavy for the air to carry them, and most "
    "of it falls into the sea.",
    "Horses": "A horse 🐎 sleeps standing for most of the night, and lies down for less than an hour to "
    "dream, while others of the herd watch.",
}


def wrapped(text, width=60):
    return re.sub(rf"(.{{1,{width}}})(?:\s|$)", r"\1\n", text).rstrip()


def markdown():
    sections = [
        f"# {title}\n\n" + "\n\n".join(wrapped(f"{number}. {fact}") for number in range(12))
        for title, fact in FACTS.items()
    ]
    return "\n\n".join(["```\n# no heading\n```", *sections])


def cut(server, text):
    body = {"input": text, "chunk": {"overlap": 0}, "return_dense": False}
    status, answer = server.post("/api/embed", body)
    assert status == 200, answer
    return [text[chunk["start"] : chunk["end"]] for chunk in answer["chunks"]]


def write(page, text):
    page.locator("#points").evaluate("(area, text) => (area.value = text)", text)
    page.locator("#points").dispatch_event("input")
    page.locator("#map-form .first").click()


@pytest.mark.parametrize(
    ("name", "text", "document"),
    [
        ("notes.md", "one\ntwo\nthree", True),
        ("", "What is machine learning?\nHow to bake bread\nweather tomorrow", False),
        ("a.txt", "apples are sweet\n\npears are sweet\n\n雨が降る", False),
        ("a.txt", "\n\n".join([wrapped(fact * 3) for fact in FACTS.values()]), True),
        ("a.txt", "\n\n".join(fact * 2 for fact in FACTS.values()), True),
        ("a.txt", "\n\n".join(["A sentence of its own, which is not short.\n" * 5] * 5), False),
        ("", "A paragraph that somebody pasted, without any break in it. " * 20, True),
        ("", "\n".join(["An abstract of an article, each on a line. " * 10] * 50), False),
        ("", "\n".join(["他走进房间，看见桌上放着一封信。"] * 40), False),
        ("", "\n".join(["　　他走进房间，看见桌上放着一封信。"] * 40), True),
        ("", "\n\n".join(["他走进房间，看见桌上放着一封信。" * 6] * 5), True),
        ("", "", False),
    ],
)
def test_what_reads_as_a_document(page, server, name, text, document):
    page.goto(f"{server.url}/healthz")
    assert page.evaluate(IS_DOCUMENT, [name, text]) is document


def test_a_document_is_cut_as_the_server_cuts_it_and_searched(open_page, server, tmp_path):
    page = open_page("map")
    sent = []
    page.on("request", lambda request: request.post_data and sent.append(request.post_data_json))
    file = tmp_path / "book.md"
    file.write_text(markdown(), encoding="utf-8")
    page.locator("#points-file").set_input_files(file)
    passages = cut(server, markdown())
    count = len(passages)
    assert count > 5
    expect(page.locator("#read-as")).to_have_text(f"book.md: one document, {count} passages.")
    expect(page.locator("#map-summary")).to_contain_text(f"{count} texts")
    whole, *asked = [body for body in sent if "input" in body]
    assert whole["input"] == markdown()
    assert whole["return_dense"] is False  # cut, no vector computed
    assert [text for body in asked for text in body["input"]] == passages

    page.locator("#search").fill("how does a horse sleep")
    page.locator("#search").press("Enter")
    expect(page.locator("#nearest button")).to_have_count(min(10, count))
    vectors = np.array(server.vectors(input=passages))
    [query] = np.array(server.vectors(input=["how does a horse sleep"]))
    best = int((vectors @ query).argmax())
    found = page.locator("#nearest li").first
    assert found.locator("button").text_content() == passages[best]
    expect(found.locator("small")).to_have_text(re.compile(rf"^{best + 1}/{count} · Horses$"))
    expect(page.locator("#nearest small", has_text="no heading")).to_have_count(0)
    found.locator("button").focus()
    expect(page.locator("#plot .tip")).to_contain_text(f"{best + 1}/{count} · Horses – ")

    page.locator("#map summary").click()
    for width, scheme in ((1280, "light"), (360, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=tmp_path / f"document-{scheme}-{width}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        report = Axe().run(page)
        assert report.violations_count == 0, report.generate_report()


def test_it_is_read_the_other_way_with_one_click(open_page, server):
    page = open_page("map")
    expect(page.locator("#read")).to_be_hidden()  # a table is neither
    text = "\n".join(list(FACTS.values()) * 10)
    page.locator("#points").evaluate("(area, text) => (area.value = text + '\\ud83c')", text)  # half an emoji
    page.locator("#points").dispatch_event("input")
    page.locator("#map-form .first").click()
    expect(page.locator("#read-as")).to_have_text("Texts: 30 lines, one text per line.")
    expect(page.locator("#map-summary")).to_contain_text("30 texts")
    page.get_by_role("button", name="Read as a document").click()
    count = len(cut(server, f"{text}\ufffd"))
    expect(page.locator("#read-as")).to_have_text(f"Texts: one document, {count} passages.")
    expect(page.locator("#map-summary")).to_contain_text(f"{count} texts")
    page.locator("#language").click()
    expect(page.locator("#read-as")).to_have_text(f"文本：一篇文档，{count} 个段落。")
    page.get_by_role("button", name="按行读取").click()
    expect(page.locator("#map-summary")).to_contain_text("30 条文本")
    page.locator("#points").fill("another text")
    expect(page.locator("#read")).to_be_hidden()


def test_what_is_too_long_for_one_text_is_refused_in_a_sentence(open_page):
    page = open_page("map")
    write(page, "long " * 200_001)
    expect(page.locator("#map-say")).to_contain_text("has 1000005 characters, the limit is 1000000")
    expect(page.locator("#map-say")).to_contain_text("“long long")
    expect(page.locator("#read-other")).to_have_text("Read as lines")
    settle(page)


def test_cutting_can_be_cancelled(open_page):
    page = open_page("map")
    write(page, "long " * 190_000)
    expect(page.locator("#map-say")).to_have_text("Splitting into passages …")
    page.locator("#map-cancel").click()
    expect(page.locator("#map-say")).to_have_text("Cancelled.")
    expect(page.locator("#map-summary")).to_contain_text("48 texts")
