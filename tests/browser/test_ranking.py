"""The ranking: the orders by dense, hybrid and cross-encoder side by side, and what moved."""

import json
import re

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import KEY, settle
from tests.server import serving

pytestmark = pytest.mark.browser

NAME = "tiny-reranker"
MOST_TEXTS = 8  # in one request, of the server without heads
QUERY = "What is BGE M3?"
PASSAGES = ["a rose", "BGE M3 is an embedding model.", "roses are red and violets are blue", "机器学习"]


@pytest.fixture(scope="module")
def plain_server(tmp_path_factory, demo_folder, tiny_reranker):
    """The demo model, dense vectors only, and a cross-encoder."""
    environ = {"EMBED_MODEL_PATH": str(demo_folder), "EMBED_MAX_TEXTS": str(MOST_TEXTS)}
    yield from served(tmp_path_factory, tiny_reranker, **environ)


@pytest.fixture(scope="module")
def full_server(tmp_path_factory, demo_with_heads, tiny_reranker):
    """All representations and a cross-encoder, behind a key."""
    environ = {"EMBED_MODEL_PATH": str(demo_with_heads), "EMBED_API_KEYS": KEY}
    yield from served(tmp_path_factory, tiny_reranker, **environ)


def served(tmp_path_factory, reranker, **environ):
    environ |= {"EMBED_RERANKER_PATH": str(reranker), "EMBED_RERANKER_NAME": NAME, "EMBED_PRECISION": "fp32"}
    with serving(tmp_path_factory.mktemp("log") / "server.log", **environ) as server:
        yield server


def scored(server, path, **body):
    status, answer = server.post(path, body, Authorization=f"Bearer {KEY}")
    assert status == 200, answer
    return answer


def logits(server, query, texts):
    """The cross-encoder's, in the order of the texts."""
    found = scored(server, "/rerank", query=query, texts=texts, raw_scores=True)
    return [one["score"] for one in sorted(found, key=lambda one: one["index"])]


def best_first(scores):
    """Places among the lines, of which the query is the first."""
    return (np.argsort(-np.array(scores), kind="stable") + 1).tolist()


class Asked:
    """What a page asks a reranker, which may be made to refuse it."""

    def __init__(self) -> None:
        self.bodies: list[dict] = []
        self.refusal: tuple[int, dict] | None = None

    def __call__(self, route) -> None:
        self.bodies.append(json.loads(route.request.post_data))
        if self.refusal:
            status, error = self.refusal
            return route.fulfill(status=status, json=error, headers={"Retry-After": "1"})
        route.continue_()


@pytest.fixture
def asked():
    return Asked()


@pytest.fixture
def ranking_page(new_page, asked):
    """The page at / of a server, once its example is compared and ranked."""

    def make(of, **options):
        page = new_page(of.url, **options)
        page.add_init_script(f"sessionStorage.setItem('key', '{KEY}')")  # who needs none ignores it
        page.route("**/rerank", asked)
        page.goto(f"{of.url}/#similarity")
        ranked(page)
        return page

    return make


def ranked(page):
    settle(page)
    expect(page.locator("#rank-cancel")).to_be_hidden()
    expect(page.locator("#rank-orders")).not_to_have_attribute("aria-busy", "true")


def compare(page, texts):
    page.locator("#lines").fill("\n".join(texts))
    page.locator("#compare-form .first").click()
    ranked(page)


def places(page, kind):
    """The texts of an order by their places among the lines."""
    rows = page.locator(f'[data-order="{kind}"] li button')
    return [int(row.get_attribute("data-text")) for row in rows.all()]


def values(page, kind):
    shown = page.locator(f'[data-order="{kind}"] .value').all_text_contents()
    return [float(text.replace("−", "-")) for text in shown]


def signs(order, before):
    moves = [before.index(text) - place for place, text in enumerate(order)]
    return [f"▲ {up}" if up > 0 else f"▼ {-up}" if up < 0 else "=" for up in moves]


def test_three_orders_stand_side_by_side_with_what_moved(ranking_page, full_server, asked):
    page = ranking_page(full_server)
    expect(page.locator("#status-reranker")).to_have_text(NAME)
    texts = [QUERY, *PASSAGES]
    compare(page, texts)
    scores = scored(full_server, "/api/score", query=QUERY, passages=PASSAGES)["scores"]
    expected = {
        "dense": scores["dense"],
        "hybrid": scores["colbert+sparse+dense"],
        "cross": logits(full_server, QUERY, PASSAGES),
    }
    orders = []
    for kind, scores in expected.items():
        orders.append(best_first(scores))
        assert places(page, kind) == orders[-1], kind
        assert values(page, kind) == pytest.approx(sorted(scores, reverse=True), abs=6e-3), kind
    assert page.locator('[data-order="dense"] .move').count() == 0
    for before, kind, order in zip(orders, ["hybrid", "cross"], orders[1:], strict=False):
        moves = page.locator(f'[data-order="{kind}"] .move [aria-hidden]')
        assert moves.all_text_contents() == signs(order, before)
    assert page.locator("#rank-orders svg path").count() == 2 * len(PASSAGES)
    first = orders[-1][0]
    expect(page.locator("#rank-reading")).to_contain_text(
        f"ranks “{texts[first]}” first; its rank by dense score is {orders[0].index(first) + 1}."
    )
    last = asked.bodies[-1]
    assert (last["model"], last["query"], last["raw_scores"]) == (NAME, QUERY, True)
    assert sorted(last["texts"]) == sorted(PASSAGES)


def test_a_model_without_heads_has_two_orders(ranking_page, plain_server):
    page = ranking_page(plain_server)
    compare(page, [QUERY, *PASSAGES])
    assert places(page, "dense") == (np.argsort(dense_distances(plain_server)) + 1).tolist()
    assert places(page, "cross") == best_first(logits(plain_server, QUERY, PASSAGES))
    expect(page.locator("#rank-orders section")).to_have_count(2)


def dense_distances(server):
    query, *passages = server.vectors(input=[QUERY, *PASSAGES])
    return -(np.array(passages) @ query)


def test_without_a_reranker_there_is_no_ranking(open_page):
    page = open_page()
    expect(page.locator("#rank")).to_be_hidden()
    expect(page.locator("#status-reranker")).to_be_hidden()


def test_a_text_leads_to_its_explanation_and_another_query_to_another_order(
    ranking_page, plain_server, asked
):
    page = ranking_page(plain_server)
    compare(page, [QUERY, *PASSAGES])
    before = len(asked.bodies)
    first = places(page, "cross")[0]
    page.locator('[data-order="cross"] li button').first.click()
    settle(page)
    expect(page.locator("#passage option:checked")).to_contain_text(PASSAGES[first - 1])
    expect(page.locator('#rank-orders [aria-current="true"]')).to_have_count(2)
    assert len(asked.bodies) == before, "the order was known"
    page.locator("#rank-query").select_option("1")
    ranked(page)
    expect(page.locator("#query option:checked")).to_contain_text(PASSAGES[0])
    assert asked.bodies[-1]["query"] == PASSAGES[0]
    assert sorted(places(page, "cross")) == [0, 2, 3, 4]


def test_the_keyboard_leads_along_an_order_and_from_one_to_the_next(ranking_page, full_server):
    page = ranking_page(full_server)
    compare(page, [QUERY, *PASSAGES])
    first, *_, last = places(page, "dense")
    button = '[data-order="{}"] button[data-text="{}"]'.format
    page.locator("#rank-query").focus()
    page.keyboard.press("Tab")
    expect(page.locator(button("dense", first))).to_be_focused()
    page.keyboard.press("ArrowUp")  # there is nothing above
    for kind in ("dense", "hybrid", "cross"):
        for index in places(page, kind)[: places(page, kind).index(last) + 1]:
            expect(page.locator(button(kind, index))).to_be_focused()
            page.keyboard.press("ArrowDown")
        if places(page, kind)[-1] != last:
            page.keyboard.press("ArrowUp")
        if kind != "cross":
            page.keyboard.press("Tab")
    expect(page.locator("#rank-orders button.lit")).to_have_count(3)
    expect(page.locator(button("cross", last))).to_have_accessible_name(
        re.compile(r"^\d .+ (up \d|down \d|same place) −?\d+\.\d\d$")
    )
    page.keyboard.press("Enter")
    settle(page)
    expect(page.locator("#passage")).to_have_value(str(last))
    expect(page.locator(button("cross", last))).to_be_focused()


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (400, "texts: too many of them"),
        (503, "The server is still busy after several tries. texts: too many of them"),
    ],
)
def test_a_refusal_is_said_and_loses_nothing(ranking_page, plain_server, asked, status, sentence):
    page = ranking_page(plain_server)
    asked.refusal = (status, {"error": "texts: too many of them", "error_type": "Validation"})
    texts = [QUERY, *PASSAGES]
    page.locator("#lines").fill("\n".join(texts))
    page.locator("#compare-form .first").click()
    if status == 503:
        expect(page.locator("#rank-say")).to_contain_text("The server is busy: trying again in 1 s")
    expect(page.locator("#rank-say")).to_have_text(sentence)
    expect(page.locator("#rank-say")).to_have_class("say error")
    ranked(page)
    assert page.locator("#lines").input_value() == "\n".join(texts)
    assert len(places(page, "dense")) == len(PASSAGES)
    assert places(page, "cross") == []

    asked.refusal = None
    page.locator('[data-order="dense"] button').first.click()
    ranked(page)
    expect(page.locator("#rank-say")).to_be_hidden()
    assert places(page, "cross") == best_first(logits(plain_server, QUERY, PASSAGES))


def test_of_many_texts_the_nearest_are_ranked(ranking_page, plain_server, asked):
    page = ranking_page(plain_server)
    texts = [QUERY, *(f"{'many words ' * 10}{number}" for number in range(60))]
    before = len(asked.bodies)
    compare(page, texts)
    expect(page.locator('[data-order="cross"] li')).to_have_count(20)
    assert [len(one["texts"]) for one in asked.bodies[before:]] == [8, 8, 4]
    expect(page.locator("#rank-say")).to_have_text(
        "Only the 20 of 60 texts with the highest dense scores are ranked."
    )


def test_axe_finds_nothing_in_any_theme_or_width(ranking_page, full_server, tmp_path):
    page = ranking_page(full_server)
    for width, scheme in ((1280, "light"), (1280, "dark"), (360, "dark"), (360, "light")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        page.locator("#rank").screenshot(path=tmp_path / f"ranking-{scheme}-{width}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    page.locator("#language").click()
    ranked(page)
    expect(page.locator("#rank-reading")).to_contain_text("交叉编码器把")
