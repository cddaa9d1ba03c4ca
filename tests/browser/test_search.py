"""The Search view: what is found, in which order, what carried it, cancel, export, the recorded example."""

import base64
import csv
import json
import random
import re

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import KEY, settle
from tests.browser.test_files import ask, drop
from tests.server import serving

pytestmark = pytest.mark.browser

QUERY = "What is BGE M3?"
PASSAGES = ["a rose", "BGE M3 is an embedding model.", "roses are red", "What BGE is", "机器学习"]
NAME = "tiny-reranker"


@pytest.fixture(scope="module")
def ranking_server(tmp_path_factory, demo_with_heads, tiny_reranker):
    """All representations and a cross-encoder, behind a key."""
    environ = {
        "EMBED_MODEL_PATH": str(demo_with_heads),
        "EMBED_API_KEYS": KEY,
        "EMBED_RERANKER_PATH": str(tiny_reranker),
        "EMBED_RERANKER_NAME": NAME,
        "EMBED_PRECISION": "fp32",
    }
    with serving(tmp_path_factory.mktemp("log") / "server.log", **environ) as server:
        yield server


def order(page, kind):
    page.locator(f'input[name="find-order"][value="{kind}"]').check(force=True)
    expect(page.locator("#hits .first-score").first).to_have_attribute("data-kind", kind)
    settle(page)


def passages(page):
    return page.locator("#hits .passage").all_text_contents()


def scores(page, kind):
    return [
        float(text.replace("−", "-")) for text in page.locator(f'[data-kind="{kind}"] b').all_text_contents()
    ]


def test_a_question_in_another_language_finds_a_passage(open_page, server):
    page = open_page("search")
    assert page.url.endswith("#search")
    expect(page.locator("#find-about")).to_have_text("Example: 48 passages")
    question = page.locator("#find-questions button").first
    expect(question).to_have_attribute("lang", "ko")
    expect(question).to_have_attribute("title", "Korean")
    question.click()
    expect(page.locator("#hits li")).to_have_count(10)
    settle(page)
    page.locator("#hits-more").click()
    expect(page.locator("#hits li")).to_have_count(20)
    expect(page.locator("#hits li").nth(10)).to_be_focused()
    with open("app/static/page/example.csv", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    vectors = np.array(server.vectors(input=texts))
    [asked] = np.array(server.vectors(input=[question.inner_text()]))
    nearest = np.argsort(-(vectors @ asked), kind="stable")[:20]
    assert passages(page)[:5] == [texts[index] for index in nearest[:5]]
    assert scores(page, "dense") == pytest.approx((vectors @ asked)[nearest].tolist(), abs=1e-3)
    subject = page.locator("#hits .about").first
    expect(subject).to_contain_text("subject: weather")
    for kind in ("lexical", "multi", "hybrid", "cross"):
        radio = page.locator(f'input[name="find-order"][value="{kind}"]')
        expect(radio).to_be_disabled()
        expect(radio).to_have_accessible_description(re.compile("BGE-M3 .*make reranker"))


def test_words_without_which_the_score_falls_are_shaded(open_page, server):
    page = open_page("search")
    ask(page, "Come si prepara il pane?")
    shaded = page.locator("#hits li:has(mark)")
    expect(shaded).to_have_count(3)
    fall = float(re.search(r"-?[\d.]+$", page.locator("#hits mark").first.get_attribute("title"))[0])
    word = page.locator("#hits mark").first.inner_text()
    text = passages(page)[0]
    texts = [text, re.sub(r"\s+", " ", text.replace(word, "", 1)).strip(), "Come si prepara il pane?"]
    whole, without, asked = np.array(server.vectors(input=texts))
    assert fall == pytest.approx(whole @ asked - without @ asked, abs=2e-3)
    page.locator("#hits li").nth(4).get_by_role("button", name="Show why").click()
    expect(shaded).to_have_count(4)
    expect(page.locator("#find-shade")).to_contain_text("each is left out once")


def test_every_order_has_the_servers_scores_and_its_shades(open_page, ranking_server):
    page = open_page("search", ranking_server)
    drop(page, "texts.txt", "\n".join(PASSAGES))
    settle(page)
    ask(page, QUERY)
    headers = {"Authorization": f"Bearer {KEY}"}
    _, answer = ranking_server.post("/api/score", {"query": QUERY, "passages": PASSAGES}, **headers)
    _, ranked = ranking_server.post(
        "/rerank", {"query": QUERY, "texts": PASSAGES, "raw_scores": True}, **headers
    )
    cross = [one["score"] for one in sorted(ranked, key=lambda one: one["index"])]
    names = {"dense": "dense", "multi": "colbert", "hybrid": "colbert+sparse+dense", "lexical": "sparse"}
    expected = {kind: answer["scores"][name] for kind, name in names.items()} | {"cross": cross}
    for kind, values in expected.items():
        order(page, kind)
        best = np.argsort(-np.array(values), kind="stable")
        best = [index for index in best if kind != "lexical" or values[index] > 0]
        assert passages(page) == [PASSAGES[index] for index in best], kind
        assert scores(page, kind) == pytest.approx([values[index] for index in best], abs=6e-3), kind
        marked = page.locator("#hits li").filter(has_text="BGE M3 is an embedding model.").locator("mark")
        expect(marked.first).to_be_visible()
        title = "adds" if kind == "lexical" else "best match of"
        assert all(mark.get_attribute("title").startswith(title) for mark in marked.all())
        if kind == "lexical":
            assert {"BGE", "M", "3"} & set(marked.all_text_contents())
    expect(page.locator("#recorded-open")).to_be_hidden()
    expect(page.locator("#find-why")).to_be_hidden()


def test_only_the_best_are_put_in_a_costly_order(open_page, ranking_server):
    page = open_page("search", ranking_server)
    sent = []
    page.on("request", lambda request: request.post_data and sent.append(request.post_data_json))
    ask(page, "bread")
    expect(page.locator("#hits-more")).to_have_text("Show 10 more")
    order(page, "cross")
    assert sum(len(body["texts"]) for body in sent if "texts" in body) == 20
    expect(page.locator("#find-found")).to_contain_text("The 20 best passages")
    sent.clear()
    order(page, "hybrid")
    multi = {text for body in sent if body.get("return_colbert_vecs") for text in body["input"]}
    assert len(multi) <= 1 + 2 * 20  # the question, the candidates, and hits of before that are shaded


def test_what_is_embedded_can_be_searched_after_a_cancel(open_page):
    page = open_page("search")
    release = []

    def hold(route):
        body = route.request.post_data_json
        if body.get("priority") == "bulk" and len(release) == 2:
            return None  # until it is cancelled
        if body.get("priority") == "bulk":
            release.append(body)
        route.continue_()

    page.route("**/api/embed", hold)
    words = random.Random(7)
    lines = [f"{words.choice(['bread', 'rain', 'horses'])} and number {number}" for number in range(2000)]
    drop(page, "many.txt", "\n".join(lines))
    expect(page.locator("#find-say")).to_have_text(
        "Embedded: 64 of 2000 passages. You can search those already."
    )
    expect(page.locator("#find-progress")).to_be_visible()
    page.locator("#find-query").fill("Brot")
    page.locator("#find-query").press("Enter")
    expect(page.locator("#find-found")).to_contain_text("64 passages.")
    page.locator("#find-cancel").click()
    expect(page.locator("#find-notes")).to_have_text(
        "Only the first 64 of 2000 passages are embedded and searched."
    )
    expect(page.locator("#find-cancel")).to_be_hidden()
    page.locator("#find-query").fill("Regen")
    page.locator("#find-query").press("Enter")
    expect(page.locator("#hits .passage").first).to_contain_text("rain")
    release.clear()
    page.locator("#find-resume").click()
    expect(page.locator("#find-say")).to_contain_text("Embedded: 128 of 2000 passages.")
    page.locator("#find-query").press("Enter")
    expect(page.locator("#find-found")).to_contain_text("128 passages.")


def test_hits_are_exported_with_the_request(open_page, full_server, tmp_path):
    page = open_page("search", full_server)
    ask(page, "bread")
    box = page.locator("#find-export")
    box.locator("summary").click()
    expect(box.locator("summary")).to_have_text("Export")
    expect(box.locator("code")).to_contain_text('"input": [\n    "bread",')
    saved = {}
    for name in ("Hits as CSV", "Hits as JSON"):
        with page.expect_download() as waiting:
            box.get_by_role("button", name=name).click()
        waiting.value.save_as(tmp_path / waiting.value.suggested_filename)
        saved[name] = (tmp_path / waiting.value.suggested_filename).read_text(encoding="utf-8")
    rows = list(csv.DictReader(saved["Hits as CSV"].splitlines()))
    assert list(rows[0]) == ["rank", "number", "dense", "lexical", "text", "subject", "language"]
    assert len(rows) == 48
    assert [row["text"] for row in rows[:10]] == passages(page)
    found = json.loads(saved["Hits as JSON"])
    assert (found["query"], found["order"], found["pooling"]) == ("bread", "dense", "mean")
    assert found["hits"][0]["columns"]["subject"] == rows[0]["subject"]
    assert float(rows[0]["dense"]) == found["hits"][0]["scores"]["dense"]


def recorded():
    """An example as it is recorded, of random numbers."""
    numbers = np.random.default_rng(3)

    def item(text, language):
        words = [(match.start(), match.end()) for match in re.finditer(r"\S+", text)]
        tokens = [{"id": sum(map(ord, text[a:b])), "start": a, "end": b} for a, b in words]
        ids = sorted({token["id"] for token in tokens})
        rows = numbers.integers(-127, 128, (len(tokens), 8)).astype(np.int8)
        dense = numbers.normal(size=16).astype("<f4")
        encoded = [base64.b64encode(array.tobytes()).decode() for array in (dense, rows)]
        return {
            "text": text,
            "language": language,
            "tokens": tokens,
            "dense": encoded[0],
            "sparse": {"indices": ids, "values": [1.0] * len(ids)},
            "colbert": {"shape": list(rows.shape), "scale": 0.01, "data": encoded[1]},
        }

    queries = [item("red roses 🌹 bloom", "en"), item("rote Rosen", "de")]
    texts = [
        item("🌹 roses are red", "en"),
        item("bread is baked", "en"),
        item("Rosen sind rote Blumen", "de"),
    ]
    about = {"model": "tiny", "heads": "trained on nothing", "recorded": "2026-11-27"}
    return {"about": about, "queries": queries, "passages": texts}


def test_a_recorded_example_shows_what_the_model_cannot(open_page):
    page = open_page("search")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    example = recorded()
    page.route("**/recorded/example.json", lambda route: route.fulfill(json=example))
    assert not any("recorded" in url for url in asked)
    page.locator("#recorded-open").click()
    expect(page.locator("#recorded-say")).to_contain_text("Recorded on 2026-11-27 with tiny, not with BGE-M3")
    expect(page.locator("#recorded .source")).to_have_text("Recorded example, not computed by this server")
    expect(page.locator("#find-form")).to_be_hidden()
    expect(page.locator("#find-questions button")).to_have_text(["red roses 🌹 bloom", "rote Rosen"])
    expect(page.locator("#hits li")).to_have_count(3)
    posts = [url for url in asked if "/api/" in url]
    for kind in ("multi", "hybrid", "dense", "lexical"):
        order(page, kind)
        expect(page.locator("#hits mark").first).to_be_visible()
    assert passages(page) == ["🌹 roses are red"]
    assert page.locator("#hits mark").all_text_contents() == ["🌹", "roses", "red"]
    page.locator("#find-questions button").nth(1).click()
    expect(page.locator("#hits mark")).to_have_text(["Rosen", "rote"])
    expect(page.locator('input[name="find-order"][value="cross"]')).to_be_disabled()
    expect(page.locator("#find-export")).to_be_hidden()
    assert [url for url in asked if "/api/" in url] == posts  # all of it without the server
    page.locator("#recorded-close").click()
    expect(page.locator("#find-about")).to_have_text("Example: 48 passages")
    expect(page.locator("#hits li")).to_have_count(0)
    ask(page, "Brot")
    expect(page.locator("#hits .first-score").first).to_have_attribute("data-kind", "dense")


def test_the_example_that_is_recorded_shows_what_each_order_is_good_for(open_page):
    page = open_page("search")
    page.locator("#recorded-open").click()
    expect(page.locator("#recorded-say")).to_contain_text("not with BGE-M3")
    page.get_by_role("button", name="BRK-7720").click()
    firsts = {}
    for kind in ("dense", "lexical"):
        order(page, kind)
        firsts[kind] = passages(page)[0]
    assert "BRK-7702" in firsts["dense"]  # a code that only looks alike
    assert "BRK-7720" in firsts["lexical"]
