"""The map: where points lie, how they are coloured, what search finds, progress and cancel."""

import csv
import io
import random
import re

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import KEY, settle

pytestmark = pytest.mark.browser

COMPONENTS = """async ([rows, n]) => {
  const { principalComponents } = await import("/assets/page/components.js");
  return principalComponents(Float32Array.from(rows), n);
}"""
CLUSTERS = """async ([rows, n, k]) => {
  const { clusters } = await import("/assets/page/clusters.js");
  return clusters(Float32Array.from(rows), n, k);
}"""
PARSE = """async (text) => (await import("/assets/page/csv.js")).parseCsv(text)"""


def draw(page, texts):
    page.locator("#points").evaluate("(area, text) => (area.value = text)", "\n".join(texts))
    page.locator("#points").dispatch_event("input")
    page.locator("#map-form .first").click()


def test_the_example_is_drawn_and_found_in(open_page, server, tmp_path):
    page = open_page("map")
    texts = page.locator("#points").input_value().split("\n")
    assert len(texts) == 48
    expect(page.locator("#map-summary")).to_contain_text("48 texts with 384 dimensions each")
    expect(page.locator("#groups li")).to_have_count(6)
    query = "how to forecast rain"
    page.locator("#search").fill(query)
    page.locator("#search").press("Enter")
    expect(page.locator("#nearest li")).to_have_count(10)
    vectors, [asked] = np.array(server.vectors(input=texts)), np.array(server.vectors(input=[query]))
    nearest = np.argsort(-(vectors @ asked), kind="stable")[:5]
    shown = page.locator("#nearest button").all_text_contents()
    assert shown[:5] == [texts[index] for index in nearest]
    value = float(page.locator("#nearest .value").first.inner_text())
    assert value == pytest.approx((vectors @ asked).max(), abs=1e-3)
    page.locator("#nearest button").nth(2).hover()
    expect(page.locator("#plot .tip")).to_contain_text(shown[2])
    lit = page.evaluate("document.querySelector('#plot canvas').toDataURL()")
    page.screenshot(path=tmp_path / "map.png", full_page=True)
    page.locator("#search-clear").click()
    expect(page.locator("#nearest li")).to_have_count(0)
    assert page.evaluate("document.querySelector('#plot canvas').toDataURL()") != lit


def test_a_search_goes_before_others_and_a_map_after_them(open_page):
    page = open_page("map")
    sent = []
    page.on("request", lambda request: request.post_data and sent.append(request.post_data_json))
    page.locator("#search").fill("what nobody has asked yet")
    page.locator("#search").press("Enter")
    expect(page.locator("#nearest li")).to_have_count(10)
    draw(page, ["one new text", "another new text", "the last of the new texts"])
    expect(page.locator("#map-summary")).to_contain_text("3 texts")
    assert [(body["priority"], len(body["input"])) for body in sent] == [("interactive", 1), ("bulk", 3)]


def test_points_are_reached_by_mouse_and_keyboard(open_page):
    page = open_page("map")
    points = page.locator("#plot [role=listbox]")
    expect(points).to_have_accessible_name(re.compile("Map of 48 texts. Arrow keys move between points"))
    points.focus()
    option = points.locator("[role=option]")
    expect(option).to_have_text("What is machine learning? (learning machines)", use_inner_text=False)
    expect(option).to_have_attribute("aria-posinset", "1")
    expect(page.locator("#plot .tip")).to_contain_text("What is machine learning?")
    page.keyboard.press("End")
    expect(option).to_contain_text("Regular exercise lowers blood pressure.")
    before = page.locator("#plot .ring").bounding_box()
    page.keyboard.press("ArrowUp")
    after = page.locator("#plot .ring").bounding_box()
    assert after["y"] < before["y"]
    assert points.get_attribute("aria-activedescendant") == option.get_attribute("id")
    page.locator("#search").focus()
    expect(page.locator("#plot .tip")).to_be_hidden()
    page.mouse.move(after["x"] + after["width"] / 2, after["y"] + after["height"] / 2)
    expect(page.locator("#plot .tip")).to_contain_text(option.inner_text())


def test_components_are_those_of_a_singular_value_decomposition(page, server):
    page.goto(f"{server.url}/healthz")
    random_numbers = np.random.default_rng(0)
    spread = np.array([5, 3, 2, *[0.5] * 29])
    for n in (3, 40, 300):
        rows = (random_numbers.normal(size=(n, 32)) * spread + 7).astype(np.float32)
        found = page.evaluate(COMPONENTS, [rows.ravel().tolist(), n])
        centred = rows - rows.mean(axis=0)
        left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
        expected = left[:, :2] * sizes[:2]
        points = np.array(found["points"])
        for axis in (0, 1):
            sign = np.sign(points[:, axis] @ expected[:, axis])
            np.testing.assert_allclose(points[:, axis], sign * expected[:, axis], atol=2e-2 * sizes[0])
        np.testing.assert_allclose(found["shares"], sizes[:2] ** 2 / (sizes**2).sum(), atol=1e-3)
    same = page.evaluate(COMPONENTS, [[1.0, 2.0] * 5, 5])
    assert np.array(same["points"]).tolist() == [[0, 0]] * 5


def test_clusters_are_what_stands_apart(page, server):
    page.goto(f"{server.url}/healthz")
    random_numbers = np.random.default_rng(0)
    sizes = [30, 20, 10, 5]
    centres = np.eye(4, 16) * 10
    truth = np.repeat(range(4), sizes)
    shuffled = random_numbers.permutation(len(truth))
    rows = (centres[truth] + random_numbers.normal(size=(65, 16)) * 0.3)[shuffled]
    found = page.evaluate(CLUSTERS, [rows.ravel().tolist(), 65, 4])
    assert found["labels"] == truth[shuffled].tolist()  # the largest is the first
    assert [group["size"] for group in found["groups"]] == sizes
    for label, group in enumerate(found["groups"]):
        mean = rows[truth[shuffled] == label].mean(axis=0)
        assert group["central"] == np.square(rows - mean).sum(axis=1).argmin()
    assert page.evaluate(CLUSTERS, [[1.0] * 12, 3, 6])["labels"] == [0, 0, 0]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_are_read_as_python_writes_them(page, server, delimiter, end):
    page.goto(f"{server.url}/healthz")
    columns = ["text", "a b", "数"]
    rows = [
        ["plain", "", "1"],
        ['with "quotes"', f"with {delimiter} it", "2"],
        ["two\nlines", "'", "3"],
        ["", "", "last"],
    ]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows([columns, *rows])
    assert page.evaluate(PARSE, "\ufeff" + text.getvalue()) == {"columns": columns, "rows": rows}


def test_a_table_is_mapped_and_coloured_by_a_column(open_page, tmp_path):
    page = open_page("map")
    file = tmp_path / "table.csv"
    kinds = ["fruit", "beast", "tool"]
    lines = [f'"{kind}, number {number}",{kind},{number / 4}' for number in range(12) for kind in kinds]
    file.write_text("\n".join(["what,kind,size", *lines]), encoding="utf-8")
    page.locator("#points-file").set_input_files(file)
    expect(page.locator("#map-summary")).to_contain_text("36 texts")
    expect(page.locator("#text-column option:checked")).to_have_text("what")
    assert page.locator("#points").input_value().startswith("fruit, number 0\nbeast")
    page.locator("#color-by").select_option(label="kind")
    expect(page.locator("#groups li")).to_have_text(["fruit 12", "beast 12", "tool 12"])
    page.locator("#color-by").select_option(label="size")
    expect(page.locator("#groups li")).to_have_text(["0", "1.375", "2.75"])
    page.locator("#clusters").fill("3")
    page.locator("#clusters").press("Enter")
    page.locator("#color-by").select_option("cluster")
    expect(page.locator("#groups li")).to_have_count(3)
    page.locator("#text-column").select_option(label="kind")
    page.locator("#map-form .first").click()
    expect(page.locator("#color-by option")).to_have_text(["cluster (k-means)", "what", "size"])


def test_two_thousand_lines_with_progress_and_cancel(open_page, full_server):
    page = open_page("map", full_server)
    random.seed(0)
    words = ["rain", "sun", "bread", "model", "data", "天气", "学习", "面包", "der", "la"]
    texts = [f"{' '.join(random.choices(words, k=3))} {number}" for number in range(2100)]
    sizes = []

    def embedding(request):
        if request.url.endswith("/api/embed") and request.method == "POST":
            sizes.append(len(request.post_data_json["input"]))

    page.on("request", embedding)
    draw(page, texts)
    expect(page.locator("#map-say")).to_contain_text(re.compile(r"[1-9]\d* of 2000 texts embedded"))
    expect(page.locator("#map-progress")).to_be_visible()
    page.locator("#map-cancel").click()
    expect(page.locator("#map-say")).to_have_text("Cancelled.")
    expect(page.locator("#map-cancel")).to_be_hidden()
    page.wait_for_timeout(500)
    begun = len(sizes)
    page.wait_for_timeout(1000)
    assert len(sizes) == begun
    expect(page.locator("#map-summary")).to_contain_text("48 texts")

    page.locator("#map-form .first").click()
    expect(page.locator("#map-summary")).to_contain_text("2000 texts", timeout=180_000)
    expect(page.locator("#map-say")).to_have_text("Only the first 2000 of 2100 texts are shown.")
    assert max(sizes) <= 32
    # What was there before the cancel was not asked for again, but for the batch that was cut off.
    assert 2000 <= sum(sizes) <= 2000 + 32
    status, _ = full_server.post("/api/embed", {"input": "a"}, Authorization=f"Bearer {KEY}")
    assert status == 200
    settle(page)
