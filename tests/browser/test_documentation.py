"""The documentation pages in headless Chromium, on the real server with the demo model."""

import pytest

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
