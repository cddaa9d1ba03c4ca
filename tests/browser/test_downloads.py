"""Export: code that works when it is pasted, vectors as files, the picture."""

import csv
import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import KEY, settle
from tests.browser.test_similarity import compare

pytestmark = pytest.mark.browser

# The dense vectors that the page has, as lists of numbers.
DENSE = """async (texts) => {
  const { embed } = await import("/assets/page/embed.js");
  return (await embed(texts, { pooling: "mean" })).map(({ dense }) => [...dense]);
}"""
KINDS = ["curl", "requests", "ollama", "openai"]
AWKWARD = ['it\'s "quoted" $HOME `date` \\n', "什么是机器学习？", "tab\there {a} %s", "🚀 </script>"]


def open_export(page, view="similarity"):
    box = page.locator(f"#{'compare' if view == 'similarity' else 'map'}-export")
    box.locator("summary").click()
    return box


def code(box, kind):
    box.locator(f'input[value="{kind}"]').check(force=True)
    expect(box.locator("code")).to_contain_text(kind)
    return box.locator("code").inner_text()


def download(page, box, name, tmp_path):
    with page.expect_download() as waiting:
        box.get_by_role("button", name=name).click()
    file = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(file)
    return file


def table(file):
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.reader(opened))


def run(kind, text, tmp_path):
    command = ["bash", "-c", text] if kind == "curl" else [sys.executable, "-c", text]
    environ = {**os.environ, "EMBED_API_KEY": KEY, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_code_works_as_it_is_pasted(open_page, full_server, tmp_path):
    page = open_page(of=full_server)
    compare(page, AWKWARD)
    box = open_export(page)
    body = {"input": AWKWARD, "pooling": "mean"}
    vectors = full_server.post("/api/embed", body, Authorization=f"Bearer {KEY}")[1]["embeddings"]
    for kind in KINDS:
        text = code(box, kind)
        assert KEY not in text
        assert "EMBED_API_KEY" in text
        answer = run(kind, text, tmp_path)
        if kind == "curl":
            np.testing.assert_allclose(json.loads(answer)["embeddings"], vectors, atol=1e-5)
        else:
            assert answer == "4 vectors of 384\n", kind

    page.locator('input[name="score"][value="hybrid"]').check(force=True)
    settle(page)  # what is above the box grows meanwhile
    page.locator("#pooling-cls").check(force=True)
    expect(box.locator("code")).to_contain_text('"pooling": "cls"')
    settle(page)
    for kind in KINDS:
        text = code(box, kind)
        answer = run(kind, text, tmp_path)
        if kind == "curl":
            assert {"embeddings", "sparse", "colbert_vecs"} <= json.loads(answer).keys()
        elif kind == "requests":
            assert "token vectors of the first text" in answer
        else:
            assert "dense vectors only" in text
            assert ("not cls" if kind == "ollama" else '"cls"') in text
            assert answer == "4 vectors of 384\n", kind


def test_code_reads_many_texts_from_a_file(open_page, tmp_path):
    page = open_page("map")
    box = open_export(page, "map")
    expect(box.locator(".hint")).to_contain_text("request.json")
    file = download(page, box, "request.json", tmp_path)
    assert len(json.loads(file.read_text())["input"]) == 48
    for kind in KINDS:
        text = code(box, kind)
        assert "EMBED_API_KEY" not in text  # this server has none
        answer = run(kind, text, tmp_path)
        if kind == "curl":
            answer = f"{len(json.loads(answer)['embeddings'])} vectors of 384\n"
        assert answer == "48 vectors of 384\n", kind


def test_vectors_are_the_servers_own(open_page, full_server, tmp_path):
    page = open_page(of=full_server)
    compare(page, AWKWARD)
    texts = [text.strip() for text in AWKWARD]
    page.locator('input[name="score"][value="hybrid"]').check(force=True)
    expect(page.locator("#legend p")).to_contain_text("Hybrid")
    box = open_export(page)
    found = json.loads(download(page, box, "Vectors as JSON", tmp_path).read_text())
    body = {"input": texts, "pooling": "mean", "return_sparse": True, "return_colbert_vecs": True}
    answer = full_server.post("/api/embed", body, Authorization=f"Bearer {KEY}")[1]
    assert found["input"] == texts
    # What else is in a batch changes the last digits.
    assert found.keys() == {"model", "pooling", "input", "embeddings", "sparse", "colbert_vecs"}
    np.testing.assert_allclose(found["embeddings"], answer["embeddings"], atol=1e-5)
    for one, other in zip(found["sparse"], answer["sparse"], strict=True):
        assert one["indices"] == other["indices"]
        np.testing.assert_allclose(one["values"], other["values"], atol=1e-5)
    for one, other in zip(found["colbert_vecs"], answer["colbert_vecs"], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    # The page writes what it got, to the last bit.
    got = page.evaluate(DENSE, texts)
    assert np.float32(found["embeddings"]).tolist() == got
    rows = table(download(page, box, "Vectors as CSV", tmp_path))
    assert rows[0][:3] == ["text", "v0", "v1"]
    assert [row[0] for row in rows[1:]] == texts
    assert np.float32([row[1:] for row in rows[1:]]).tolist() == got


@pytest.mark.parametrize("view", ["similarity", "map"])
def test_the_picture_is_a_picture(open_page, tmp_path, view):
    page = open_page(view)
    file = download(page, open_export(page, view), "Picture as PNG", tmp_path)
    content = file.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert width > 1000
    assert height > 800
    assert len(content) > 20_000  # not one colour


def test_many_lexical_texts_are_a_table_of_weights(open_page, full_server, tmp_path):
    page = open_page(of=full_server)
    page.locator('input[name="score"][value="lexical"]').check(force=True)
    expect(page.locator("#legend p")).to_contain_text("Lexical")
    rows = table(download(page, open_export(page), "Vectors as CSV", tmp_path))
    assert rows[0] == ["text", "token", "weight"]
    assert all(np.float32(weight) > 0 for _, _, weight in rows[1:])
    assert len({text for text, _, _ in rows[1:]}) == 12
