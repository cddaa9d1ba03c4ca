"""The heat map as it is looked at: whole, numbered, and with a way to Why and back."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import settle
from tests.browser.test_similarity import cell, compare

pytestmark = pytest.mark.browser

OVERFLOW = """() => ["html", ".scroller", ".result"].map((place) => document.querySelector(place))
  .map((element) => element.scrollWidth - element.clientWidth)"""
# What of the heat map reaches beyond the column that it is in.
BEYOND = """() => {
  const { left, right } = document.querySelector("#heat").getBoundingClientRect();
  return [...document.querySelectorAll("#heat :is(th, td, .rows span, canvas)")]
    .filter((element) => {
      const box = element.getBoundingClientRect();
      return !box.width || !box.height || box.left < left - 0.5 || box.right > right + 0.5;
    })
    .map((element) => element.outerHTML);
}"""
PROGRESS = """async ([known, texts]) => {
  const { embed } = await import("/assets/page/embed.js");
  await embed(known, { pooling: "mean" });
  const told = [];
  await embed(texts, { pooling: "mean", progress: (done, of) => told.push([done, of]) });
  return told;
}"""
# Where everything stands, without and with the buttons and bars that are there while work runs.
JUMPS = """() => {
  const places = () => [...document.querySelectorAll("main :is(button, label, select, p, #heat, #plot, h2)")]
    .filter((element) => element.checkVisibility() && !element.closest(".working")).map((element) => {
      const { left, top } = element.getBoundingClientRect();
      return [element.id || element.textContent, left, top];
    });
  const before = places();
  for (const element of document.querySelectorAll(".working :is(progress, button)")) element.hidden = false;
  return places().filter((place, index) => String(place) !== String(before[index]));
}"""


def words(n):
    return [f"text number {number}" for number in range(1, n + 1)]


@pytest.mark.parametrize("n", [2, 11, 12, 30, 60])
def test_up_to_sixty_texts_are_whole(open_page, tmp_path, n):
    page = open_page()
    compare(page, words(n))
    expect(page.locator("#heat td")).to_have_count(n * n)
    assert page.evaluate(OVERFLOW) == [0, 0, 0]
    assert page.evaluate(BEYOND) == []
    scroller = page.locator(".scroller")
    assert scroller.evaluate("(e) => e.scrollHeight <= e.clientHeight")
    numbers = page.locator("#heat tbody .number").all_text_contents()
    assert numbers == [str(number) for number in range(1, n + 1)]
    label = page.locator("#heat tbody th").last.bounding_box()
    assert label["height"] >= 14
    assert label["width"] >= 150
    page.screenshot(path=tmp_path / f"{n}.png", full_page=True)


def test_twelve_texts_are_whole_on_a_phone(open_page):
    page = open_page(width=390)
    assert page.evaluate(OVERFLOW) == [0, 0, 0]
    assert page.evaluate(BEYOND) == []
    expect(cell(page, 0, 1)).to_have_text(".90")
    compare(page, words(60))
    document, scroller, _ = page.evaluate(OVERFLOW)
    assert document == 0
    assert scroller > 0  # or no finger would hit a cell


def test_rows_of_a_large_map_are_numbered(open_page):
    page = open_page()
    compare(page, words(150))
    numbers = page.locator("#heat .rows span")
    expect(numbers).to_have_text([str(number) for number in range(1, 151, 5)])
    assert page.evaluate(OVERFLOW) == [0, 0, 0]
    side = page.locator("#heat .rows").bounding_box()
    last = numbers.last.bounding_box()
    assert last["y"] + last["height"] <= side["y"] + side["height"]
    assert side["height"] == pytest.approx(page.locator(".raster").bounding_box()["height"], abs=1)
    page.locator("#order").select_option("near")
    page.locator("#order-row").select_option("41")
    expect(numbers.first).to_have_text("42")
    page.set_viewport_size({"width": 390, "height": 800})
    page.locator(".scroller").evaluate("(e) => e.scrollTo(1000, 0)")
    box = numbers.first.bounding_box()
    assert box["x"] >= 0, "row numbers stay in sight"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_a_chosen_cell_brings_why_into_view_and_one_comes_back(open_page, motion):
    page = open_page(height=700, reduced_motion=motion)
    why, title = page.locator("#why-score"), page.locator("#why-title")
    expect(why).not_to_be_in_viewport()
    cell(page, 2, 1).click()
    expect(why).to_be_in_viewport()
    expect(title).to_be_focused()
    expect(page.locator("#query option:checked")).to_contain_text("3 ")
    expect(page.locator("#heat .tip")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(cell(page, 2, 1)).to_be_focused()
    expect(cell(page, 2, 1)).to_be_in_viewport()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(title).to_be_focused()
    expect(why).to_be_in_viewport()
    settle(page)
    page.get_by_role("button", name="Back to the heat map").click()
    expect(cell(page, 3, 1)).to_be_focused()
    expect(cell(page, 3, 1)).to_be_in_viewport()


def test_of_two_texts_one_thing_is_said(open_page):
    page = open_page()
    compare(page, ["a red rose", "eine rote Rose"])
    expect(page.locator("#nearest-text")).to_have_text(
        f"“a red rose” and “eine rote Rose” have a score of {cell(page, 0, 1).inner_text()}."
    )


def test_progress_counts_what_is_known_as_done(page, server):
    page.goto(server.url)
    settle(page)
    texts = words(200)
    told = page.evaluate(PROGRESS, [texts[:64], texts])
    assert told[0] == [64, 200]
    assert told[-1] == [200, 200]
    assert {of for _, of in told} == {200}


def test_a_document_is_compared_by_lines_and_that_is_said(open_page, tmp_path):
    page = open_page()
    file = tmp_path / "notes.md"
    file.write_text("# Bread\nflour, water, salt\n# Rain\ndrops", encoding="utf-8")
    sentence = "Here each line is one text. The map can split a document into passages instead."
    page.locator("#lines-file").set_input_files(file)
    expect(page.locator("#compare-say")).to_have_text(sentence)
    expect(page.locator("#heat tbody tr")).to_have_count(4)
    compare(page, ["flour", "drops"])
    expect(page.locator("#compare-say")).to_be_hidden()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("view", ["similarity", "map"])
def test_nothing_jumps_while_work_runs(open_page, view, width):
    page = open_page(view, width=width)
    assert page.evaluate(JUMPS) == []


@pytest.mark.parametrize("view", ["similarity", "map"])
def test_controls_stand_in_line(open_page, view):
    page = open_page(view)
    found = page.locator(f"#{view} .controls").first.locator("select, .choice span, input[type=number]")
    boxes = [control.bounding_box() for control in found.all() if control.is_visible()]
    assert len(boxes) > 3
    assert {(box["y"], box["height"]) for box in boxes} == {(boxes[0]["y"], boxes[0]["height"])}
    labels = page.locator(f"#{view} .controls").first.locator("legend, .field > label")
    tops = [label.bounding_box()["y"] for label in labels.all() if label.is_visible()]
    assert max(tops) - min(tops) < 1


@pytest.mark.parametrize("n", [60, 61])
def test_axe_finds_nothing_in_a_large_map(open_page, tmp_path, n):
    page = open_page(locale="zh-CN")
    compare(page, words(n))
    for width, scheme in ((1280, "light"), (390, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=tmp_path / f"{n}-{scheme}-{width}.png", full_page=True)
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("locale", ["en", "zh-CN"])
@pytest.mark.parametrize("view", ["similarity", "map"])
def test_a_finger_hits_everything(open_page, view, locale):
    page = open_page(view, width=390, height=844, is_mobile=True, has_touch=True, locale=locale)
    inside = f"#{view} :is(button, select, summary, .file, .choice label)"
    targets = page.locator(f"header :is(a, button), {inside}")
    small = [
        target.evaluate("(e) => e.outerHTML")
        for target in targets.all()
        if target.is_visible() and min(target.bounding_box()[side] for side in ("width", "height")) < 24
    ]
    assert small == []
    main = page.locator(f"#{view} :is(.buttons button, .controls select, .file), nav a, [role=tab]")
    assert all(one.bounding_box()["height"] >= 44 for one in main.all() if one.is_visible())
    if view == "similarity":  # cells are smaller, and as far apart as targets must be
        first, second = cell(page, 0, 0).bounding_box(), cell(page, 1, 1).bounding_box()
        assert second["x"] - first["x"] >= 24
        assert second["y"] - first["y"] >= 24
