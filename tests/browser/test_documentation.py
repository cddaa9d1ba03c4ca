"""The documentation pages in headless Chromium, on the real server with the demo model."""

import re

import pytest

from tests.browser.conftest import KEY

pytestmark = pytest.mark.browser


def open_embed(page, server):
    page.goto(f"{server.url}/docs")
    assert page.title()  # the page itself, and no redirect
    page.locator("#operations-Embeddings-post_api_embed button.opblock-summary-control").click()
    return page.locator("#operations-Embeddings-post_api_embed")


def execute(operation, status, words):
    """Press Execute and see an answer with this status and these words."""
    from playwright.sync_api import expect

    operation.locator("button.execute").click()
    answer = operation.locator(".live-responses-table .response").first
    expect(answer).to_contain_text(words, timeout=30_000)
    expect(answer.locator(".response-col_status").first).to_contain_text(status)


def test_try_it_out_sends_the_examples(page, server, tmp_path):
    operation = open_embed(page, server)
    execute(operation, "200", '"prompt_eval_count": 7')
    operation.locator(".examples-select select").first.select_option("batch")
    execute(operation, "200", '"prompt_eval_count": 22')
    page.screenshot(path=tmp_path / "apidocs.png", full_page=True)


def test_try_it_out_shows_a_refusal(page, server):
    operation = open_embed(page, server)
    operation.locator(".examples-select select").first.select_option("refusal")
    execute(operation, "404", "is served here")


def test_a_foreign_document_is_not_loaded(page, server):
    page.goto(f"{server.url}/apidocs/?url=https://example.org/a.json&configUrl=https://example.org/b.json")
    page.locator("#operations-Embeddings-post_api_embed").wait_for()


def test_redoc_shows_the_document(page, server, tmp_path):
    page.goto(f"{server.url}/redoc")
    page.get_by_role("heading", name="Turn texts into vectors").first.wait_for()
    page.get_by_text("encoding_format").first.wait_for()
    page.screenshot(path=tmp_path / "redoc.png")


@pytest.mark.parametrize("path", ["apidocs/", "redoc"])
def test_the_documentation_is_dark_where_the_reader_wants_it(new_page, server, tmp_path, path):
    grounds = {}
    for scheme in ("light", "dark"):
        page = new_page(server.url, color_scheme=scheme)
        page.goto(f"{server.url}/{path}")
        page.get_by_text("Turn texts into vectors").last.wait_for()
        grounds[scheme] = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        page.screenshot(path=tmp_path / f"{scheme}.png")
    assert grounds["dark"] != grounds["light"]
    assert max(map(int, re.findall(r"\d+", grounds["dark"])[:3])) < 60


def test_a_key_is_given_once_to_try_every_endpoint(new_page, full_server):
    page = new_page(full_server.url)
    operation = open_embed(page, full_server)
    execute(operation, "401", "API key missing or invalid")
    page.locator(".auth-wrapper .authorize").first.click()
    page.locator(".modal-ux input").first.fill(KEY)
    page.locator(".modal-ux .authorize").first.click()
    page.locator(".modal-ux .btn-done").first.click()
    execute(operation, "200", '"prompt_eval_count": 7')


def test_a_key_given_to_the_page_is_taken_over(new_page, full_server):
    page = new_page(full_server.url)
    page.add_init_script(f"sessionStorage.setItem('key', '{KEY}')")
    execute(open_embed(page, full_server), "200", '"prompt_eval_count": 7')
