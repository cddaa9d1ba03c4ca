"""The map in use: what groups are called and where that is written, zoom, and what is selected."""

import csv
import random
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import settle

pytestmark = pytest.mark.browser

# Every text that is written on a canvas, with its place.
RECORD = """() => {
  window.written = [];
  const { fillText } = CanvasRenderingContext2D.prototype;
  CanvasRenderingContext2D.prototype.fillText = function (text, x, y, ...rest) {
    written.push({ text, x, y, width: this.measureText(text).width });
    return fillText.call(this, text, x, y, ...rest);
  };
}"""
NAMED = """async ([texts, labels, page]) => {
  const { named } = await import("/assets/page/names.js");
  const groups = [0, 1].map((label) => ({ size: labels.filter((one) => one === label).length, central: -1 }));
  return named(texts, { labels, distances: texts.map((_, index) => index), groups }, page);
}"""
PLACED = """async ([entries, places, size]) => {
  const { placed } = await import("/assets/page/labels.js");
  return placed(entries, places, (text) => text.length * 8, size);
}"""
GROUPS = ["learning machines", "weather", "cooking", "sport", "travel", "health"]
CJK = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
HAN = re.compile(r"[\u4e00-\u9fff]")


def legend(page):
    return page.locator("#groups button")


def ring(page):
    """The middle of the point that is pointed at."""
    box = page.locator("#plot .ring").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def rows(page):
    return [row.split("\t") for row in page.locator("#select-rows tbody tr").all_inner_texts()]


def test_a_column_of_few_values_colours_first(open_page, tmp_path):
    page = open_page("map")
    expect(page.locator("#color-by option:checked")).to_have_text("subject")
    expect(legend(page)).to_have_text([f"{name} 8" for name in GROUPS])
    page.locator("#color-by").select_option("cluster")
    file = tmp_path / "unique.csv"
    file.write_text("text,id\n" + "\n".join(f"text {n},id {n}" for n in range(20)), encoding="utf-8")
    page.locator("#points-file").set_input_files(file)
    expect(page.locator("#map-summary")).to_contain_text("20 texts")
    expect(page.locator("#color-by")).to_have_value("cluster")


def test_groups_are_named_where_they_are(open_page, tmp_path):
    page = open_page("map")
    page.evaluate(RECORD)
    page.locator("#color-by").select_option("language")
    page.locator("#color-by").select_option("subject")
    page.evaluate("written.length = 0")
    page.locator("#zoom-reset").click()  # paints anew
    written = page.evaluate("written")
    assert sorted(label["text"] for label in written) == sorted(f"{name} 8" for name in GROUPS)
    for one in written:
        for other in written:
            apart = abs(one["y"] - other["y"]) >= 18 or one["x"] + one["width"] <= other["x"]
            assert one is other or apart or other["x"] + other["width"] <= one["x"], (one, other)
    page.locator('#groups button[data-name="cooking"]').click()  # they are near each other, at the bottom
    page.screenshot(path=tmp_path / "cooking.png", full_page=True)


@pytest.mark.parametrize(("locale", "read"), [("en", False), ("zh-CN", True)])
def test_clusters_are_named_in_a_language_of_theirs(open_page, locale, read):
    page = open_page("map", locale=locale)
    page.locator("#color-by").select_option("cluster")
    expect(legend(page)).to_have_count(6)
    # A text of the example in eight languages: the reader's own is the one to read.
    for row in page.locator("#groups li").all_text_contents()[:5]:
        assert bool(CJK.search(row)) is read, row
    assert sum(int(count) for count in page.locator("#groups .count").all_text_contents()) == 48
    page.locator("#language").click()
    expect(legend(page).first).to_have_text(re.compile("[a-z]{4}" if read else HAN.pattern))
    settle(page)


def test_a_name_is_of_the_words_that_set_a_cluster_apart(page, server):
    page.goto(f"{server.url}/healthz")
    late = [f"the parcel with the {what} was late again" for what in ("cup", "lamp", "rug", "vase")]
    broken = [f"退款还没有收到，{what}也没有收到" for what in ("杯子", "台灯", "地毯", "花瓶")]
    first, second = page.evaluate(NAMED, [[*late, *broken, "refund"], [0] * 4 + [1] * 5, "en"])
    assert set(first["name"].split(", ")) == {"parcel", "again", "late"}
    assert "退款" in second["name"]  # most are Chinese, though the reader is not
    assert second["central"] == 4
    assert first["central"] == 0
    assert (first["size"], second["size"]) == (4, 5)


def test_labels_never_lie_over_each_other(page, server):
    page.goto(f"{server.url}/healthz")
    generator = random.Random(0)
    for n in (1, 5, 9):
        places = [[generator.uniform(150, 250), generator.uniform(90, 110)] for _ in range(90)]
        entries = [{"name": f"a name {g}", "members": list(range(g, 90, n))} for g in range(n)]
        found = page.evaluate(PLACED, [entries, places, [400, 300]])
        assert len(found) == n
        for index, one in enumerate(found):
            assert 0 <= one["left"] <= 400 - one["width"]
            assert 0 <= one["top"] <= 300 - 18
            for other in found[:index]:
                aside = abs(one["left"] - other["left"]) >= one["width"]
                assert aside or abs(one["top"] - other["top"]) >= 18
    assert page.evaluate(PLACED, [[{"name": "away", "members": [0]}], [[-500, 10]], [400, 300]]) == []


def test_it_zooms_by_wheel_keys_and_buttons(open_page):
    page = open_page("map", height=1000)
    points = page.locator("#plot [role=listbox]")
    points.focus()
    start, scrolled = ring(page), page.evaluate("scrollY")
    page.mouse.move(*start)
    page.mouse.wheel(0, -400)
    expect(points).to_have_class(re.compile("zoomed"))
    page.mouse.move(start[0] + 1, start[1])  # the point under the mouse has stayed there
    x, y = ring(page)
    assert abs(x - start[0]) < 2
    assert abs(y - start[1]) < 2
    assert page.evaluate("scrollY") == scrolled

    page.mouse.down()
    page.mouse.move(start[0] - 60, start[1] + 30, steps=4)
    page.mouse.up()
    page.mouse.move(start[0] - 61, start[1] + 30)
    x, y = ring(page)
    assert abs(x - start[0] + 60) < 2
    assert abs(y - start[1] - 30) < 2

    page.locator("#zoom-reset").click()
    expect(points).not_to_have_class(re.compile("zoomed"))
    page.locator("#zoom-in").click()
    expect(points).to_have_class(re.compile("zoomed"))
    page.locator("#zoom-out").click()
    expect(points).not_to_have_class(re.compile("zoomed"))
    points.focus()
    page.keyboard.press("+")
    expect(points).to_have_class(re.compile("zoomed"))
    for _ in range(6):
        page.keyboard.press("+")
    box = page.locator("#plot").bounding_box()
    for key in ("End", "Home", "PageDown"):
        page.keyboard.press(key)  # a point that is out of sight comes into it
        x, y = ring(page)
        assert box["x"] <= x <= box["x"] + box["width"], key
        assert box["y"] <= y <= box["y"] + box["height"], key
    page.keyboard.press("0")
    expect(points).not_to_have_class(re.compile("zoomed"))
    page.mouse.move(*start)
    page.mouse.wheel(0, 300)  # there is nothing to zoom out of: the page scrolls
    page.wait_for_timeout(500)
    assert page.evaluate("scrollY") > 0


def test_a_pinch_zooms(open_page):
    page = open_page("map", width=390, height=900, has_touch=True, is_mobile=True)
    plot = page.locator("#plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)

    def touch(kind, *offsets):
        fingers = [{"x": x + offset, "y": y, "id": index} for index, offset in enumerate(offsets)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    touch("touchStart", -20, 20)
    for spread in range(25, 100, 5):
        touch("touchMove", -spread, spread)
    touch("touchEnd")
    expect(page.locator("#plot [role=listbox]")).to_have_class(re.compile("zoomed"))
    assert page.evaluate("visualViewport.scale") == 1


def test_a_frame_selects_into_a_table(open_page, tmp_path):
    page = open_page("map")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    expect(page.locator("#selected")).to_be_hidden()
    page.locator("#plot [role=listbox]").focus()
    page.keyboard.press("End")
    x, y = ring(page)
    text = page.locator("#plot [role=option]").text_content()
    page.keyboard.down("Shift")
    page.mouse.move(x - 5, y - 5)
    page.mouse.down()
    page.mouse.move(x + 5, y + 5, steps=3)
    page.mouse.up()
    page.keyboard.up("Shift")
    expect(page.locator("#select-title")).to_have_text("Selected texts: 1")
    assert rows(page) == [["48", "Regular exercise lowers blood pressure.", "health", "English"]]
    assert text.startswith(rows(page)[0][1])

    page.locator("#select-drag").click()
    expect(page.locator("#select-drag")).to_have_attribute("aria-pressed", "true")
    box = page.locator("#plot").bounding_box()
    page.mouse.move(box["x"] + 8, box["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 8, box["y"] + box["height"] - 8, steps=3)
    expect(page.locator("#plot .frame")).to_be_visible()
    page.mouse.up()
    expect(page.locator("#plot .frame")).to_be_hidden()
    expect(page.locator("#select-title")).to_have_text("Selected texts: 48")
    page.screenshot(path=tmp_path / "selected.png", full_page=True)

    legend(page).nth(1).click()
    expect(legend(page).nth(1)).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#select-title")).to_have_text("Selected texts: 8")
    assert {row[2] for row in rows(page)} == {"weather"}
    page.locator("#select-copy").click()
    expect(page.locator("#select-say")).to_have_text("Copied.")
    copied = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert copied[0].split("\t") == ["#", "Text", "subject", "language"]
    assert [line.split("\t") for line in copied[1:]] == rows(page)
    with page.expect_download() as waiting:
        page.locator("#select-csv").click()
    file = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(file)
    with file.open(encoding="utf-8", newline="") as opened:
        assert list(csv.reader(opened)) == [["#", "Text", "subject", "language"], *rows(page)]
    page.locator("#select-clear").click()
    expect(page.locator("#selected")).to_be_hidden()


def test_the_keyboard_selects_points_and_groups(open_page):
    page = open_page("map")
    points = page.locator("#plot [role=listbox]")
    points.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("PageDown")
    page.keyboard.press("Space")
    option = page.locator("#plot [role=option]")
    expect(option).to_have_attribute("aria-selected", "true")
    expect(page.locator("#select-title")).to_have_text("Selected texts: 2")
    page.keyboard.press("Enter")
    expect(option).to_have_attribute("aria-selected", "false")
    assert [row[0] for row in rows(page)] == ["1"]
    page.keyboard.press("Escape")  # the hint
    page.keyboard.press("Escape")
    expect(page.locator("#selected")).to_be_hidden()
    legend(page).nth(2).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#select-title")).to_have_text("Selected texts: 8")
    expect(legend(page).nth(2)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#selected")).to_be_hidden()


@pytest.mark.parametrize("locale", ["en", "zh-CN"])
def test_axe_finds_nothing_in_a_selection(open_page, tmp_path, locale):
    page = open_page("map", locale=locale)
    page.locator("#color-by").select_option("cluster")
    legend(page).first.click()
    page.locator("#select-drag").click()
    page.locator("#zoom-in").click()
    for width, scheme in ((1280, "light"), (1280, "dark"), (390, "dark"), (390, "light")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=tmp_path / f"selection-{scheme}-{width}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
