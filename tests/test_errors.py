"""Every refused request: the status, the message and the shape of the answer."""

import json
import logging
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import create_app
from app.api.body import MOST_BODIES, has_more_values
from app.config import Settings
from app.engine.embeddings import PRIORITIES
from app.engine.errors import NotFinite, NotLoaded, Overloaded, TooLate


def refused(response, status):
    assert response.status_code == status, response.text
    assert response.mimetype == "application/json"
    assert set(response.json) == {"error", "details"}
    assert isinstance(response.json["error"], str)
    assert isinstance(response.json["details"], dict)
    assert "Traceback" not in response.text
    return response.json


def send(client, body, **kwargs):
    return client.post("/api/embed", data=body, **{"content_type": "application/json", **kwargs})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"input=a",
        b'{"input": "a"',
        b'{"input": "\xff\xfe"}',
        b'{"input": "\\ud800"}',
        b'{"input": NaN}',
        b'{"input": "a", "dimensions": Infinity}',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"input": "a", "options": ' + b'{"a":' * 40_000,
    ],
    ids=[
        "nothing",
        "a form",
        "cut short",
        "not UTF-8",
        "lone surrogate",
        "NaN",
        "Infinity",
        "brackets",
        "braces",
    ],
)
def test_what_is_not_json_is_400(app, fake, body):
    from app import create_app
    from app.config import Settings

    client = create_app(Settings(), fake).test_client()
    assert "not valid JSON" in refused(send(client, body), 400)["error"]


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"5", b"null", b"true"])
def test_json_that_is_no_object_is_400(client, body):
    assert "must be a JSON object" in refused(send(client, body), 400)["error"]


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({}, "input", "is required"),
        ({"input": None}, "input", "is required"),
        ({"input": 5}, "input", "not a number"),
        ({"input": True}, "input", "not a boolean"),
        ({"input": {"text": "a"}}, "input", "not an object"),
        ({"input": ["a", 5]}, "input", "text 1 must be a string, not a number"),
        ({"input": ["a", "b", None]}, "input", "text 2 must be a string, not null"),
        ({"input": [["a"]]}, "input", "text 0 must be a string, not a list"),
        ({"input": [1, 2, 3]}, "input", "text 0 must be a string, not a number"),
        ({"input": ["a"] * 65}, "input", "65 texts, the limit is 64"),
        ({"input": "a", "dimensions": True}, "dimensions", "whole number"),
        ({"input": "a", "dimensions": "8"}, "dimensions", "whole number"),
        ({"input": "a", "dimensions": 8.5}, "dimensions", "whole number"),
        ({"input": "a", "dimensions": -1}, "dimensions", "positive"),
        ({"input": "a", "dimensions": 17}, "dimensions", "at most 16"),
        ({"input": "a", "encoding_format": "float64"}, "encoding_format", "must be one of float, base64"),
        ({"input": "a", "encoding_format": 1}, "encoding_format", "string"),
        ({"input": "a", "pooling": "max"}, "pooling", "mean, cls"),
        ({"input": "a", "truncate": 0}, "truncate", "must be true or false, or one of END"),
        ({"input": "a", "truncate": "yes"}, "truncate", "must be true or false, or one of END"),
        ({"input": "a", "return_sparse": "yes"}, "return_sparse", "not a string"),
        ({"input": "a", "return_sparse": 1}, "return_sparse", "not a number"),
        ({"input": "a", "model": 3}, "model", "string"),
    ],
    ids=str,
)
def test_a_field_that_does_not_fit_is_422_and_named(client, body, field, words):
    answer = refused(client.post("/api/embed", json=body), 422)
    assert answer["error"].startswith(f"{field}: ")
    assert words in answer["error"]
    assert list(answer["details"]) == [field]


def test_every_wrong_field_is_in_the_details(client):
    answer = refused(client.post("/api/embed", json={"dimensions": -1, "pooling": "max"}), 422)
    assert set(answer["details"]) == {"input", "dimensions", "pooling"}


def test_a_text_too_long_to_be_whole_is_422_with_index_and_tokens(client):
    body = {"input": ["short", " ".join(["word"] * 20)], "truncate": False}
    answer = refused(client.post("/api/embed", json=body), 422)
    assert "text 1 has 22 tokens, the limit is 8" in answer["error"]
    assert list(answer["details"]) == ["input"]


def test_another_model_is_404(client):
    answer = refused(client.post("/api/embed", json={"input": "a", "model": "gpt-4"}), 404)
    assert answer["error"] == "model 'gpt-4' not found: 'fake' is served here"
    assert list(answer["details"]) == ["model"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/embed", {"input": "a"}),
        ("/api/score", {"pairs": [["a", "b"]]}),
        ("/api/score", {"query": "a", "passages": ["b"]}),
        ("/api/show", {}),
        ("/api/pull", {}),
        ("/api/embeddings", {"prompt": "a"}),
        ("/v1/embeddings", {"input": "a"}),
        ("/v1/rerank", {"query": "a", "documents": ["b"]}),
    ],
)
def test_a_name_too_long_for_any_model_is_refused_and_not_told_back(client, path, body):
    fields = ("model", "name") if path in ("/api/show", "/api/pull", "/api/embeddings") else ("model",)
    for field in fields:
        assert client.post(path, json=body | {field: 256 * "m"}).status_code == 404
        answer = client.post(path, json=body | {field: 90_000 * "m"})
        assert answer.status_code == (400 if path.startswith("/v1/") else 422)
        assert "model: has 90000 characters, the limit is 256" in answer.text
        assert len(answer.data) < 1000


@pytest.mark.parametrize("method", ["get", "put", "delete", "patch"])
def test_a_wrong_method_is_405_with_allow(client, method):
    response = getattr(client, method)("/api/embed")
    refused(response, 405)
    assert "POST" in response.headers["Allow"]


def test_an_unknown_path_is_404(client):
    refused(client.get("/api/nothing"), 404)


@pytest.mark.parametrize("kind", ["text/plain", "text/xml", "multipart/form-data"])
def test_another_content_type_is_415(client, kind):
    assert "application/json" in refused(send(client, b'{"input": "a"}', content_type=kind), 415)["error"]


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", None])
@pytest.mark.parametrize("header", ["Origin", "Sec-Fetch-Site"])
def test_what_curl_calls_json_is_read_but_not_from_a_page(client, kind, header):
    """A browser sends a form, or a body without a type, to any site without a preflight request."""
    assert send(client, b'{"input": "a"}', content_type=kind).status_code == 200
    for value in ("https://evil.example", "null", "cross-site"):
        answer = send(client, b'{"input": "a"}', content_type=kind, headers={header: value})
        assert "application/json" in refused(answer, 415)["error"]


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate"])
def test_a_compressed_body_is_415(client, encoding):
    answer = refused(send(client, b"\x1f\x8b", headers={"Content-Encoding": encoding}), 415)
    assert encoding in answer["error"]


def test_a_body_over_the_limit_is_413(client):
    answer = refused(send(client, b'{"input": "' + b"a" * 100_000 + b'"}'), 413)
    assert "100000 bytes" in answer["error"]


def test_a_body_at_the_limit_is_read_whole(client, fake):
    text = "a" * (100_000 - len('{"input":""}'))
    assert send(client, b'{"input":"%s"}' % text.encode()).status_code == 200
    assert fake.calls[0]["texts"] == [text]


def test_only_so_many_bytes_of_bodies_are_held_at_a_time(app, client, settings):
    bodies = app.extensions["bodies"]
    body = b'{"input": "%s"}' % (1000 * b"a")
    held = MOST_BODIES * settings.max_body_bytes - 1000
    assert bodies.hold(held)
    answer = send(client, body)
    refused(answer, 503)
    assert answer.headers["Retry-After"] == "7"
    bodies.release(held)
    assert send(client, body).status_code == 200
    assert send(client, body[:-1]).status_code == 400
    assert bodies.hold(held + 1000), "what was answered is no longer held"


def test_a_model_that_is_not_loaded_is_503(client, fake):
    fake.fails = NotLoaded("the model is not loaded yet")
    assert refused(client.post("/api/embed", json={"input": "a"}), 503)["error"] == str(fake.fails)


def test_a_full_queue_is_503_with_retry_after(client, fake):
    fake.fails = Overloaded(900, 1000, 7)
    response = client.post("/api/embed", json={"input": "a"})
    assert "900 tokens are waiting" in refused(response, 503)["error"]
    assert response.headers["Retry-After"] == "7"


def test_a_request_that_waited_too_long_is_504(client, fake):
    fake.fails = TooLate()
    refused(client.post("/api/embed", json={"input": "a"}), 504)


def test_a_vector_that_is_not_finite_is_an_error_and_logged(client, fake, caplog):
    fake.fails = NotFinite([3])
    assert "text 3" in refused(client.post("/api/embed", json={"input": "a"}), 500)["error"]
    assert "text 3" in caplog.text


def test_the_unexpected_is_a_logged_500_without_detail(client, fake, caplog):
    fake.fails = RuntimeError("secret path /etc/passwd")
    with caplog.at_level(logging.ERROR):
        answer = refused(client.post("/api/embed", json={"input": "a"}), 500)
    assert "secret" not in str(answer)
    assert "secret path" in caplog.text


def test_health_before_and_after_loading(client, fake):
    fake.turns(ready=False)
    assert client.get("/healthz").status_code == 200
    refused(client.get("/readyz"), 503)
    refused(client.get("/health"), 503)
    fake.turns(ready=True)
    for path in ("/healthz", "/readyz", "/health"):
        assert client.get(path).json == {"status": "ok"}


@pytest.mark.parametrize(
    "path", ["/api/embed", "/v1/embeddings", "/api/embeddings", "/embed", "/rerank", "/tokenize"]
)
def test_where_nothing_more_may_wait_a_body_is_not_even_parsed(client, fake, path):
    fake.turns(full=frozenset(PRIORITIES))
    answer = client.post(path, data=b"not JSON", content_type="application/json")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "7"
    assert not fake.calls
    assert client.post("/api/show", json={"model": "fake"}).status_code == 200
    assert client.post("/nothing", json={}).status_code == 404
    fake.turns(full=frozenset())
    assert client.post("/api/embed", json={"input": "room again"}).status_code == 200


def test_with_the_last_threads_nothing_is_answered_that_has_a_body(app, client):
    """The body is not read either: its client may be slow, and health checks need those threads."""
    app.extensions["seats"].threads = 0
    origin = {"Origin": "http://a"}  # a request with an origin goes through Flask
    for path in ("/api/embed", "/api/show", "/tokenize", "/nothing"):
        for headers in ({}, origin):
            unreadable = {"wsgi.input": None}
            answer = client.post(path, data=b"not read", environ_overrides=unreadable, headers=headers)
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "7"


def marks(text: str) -> int:
    """Commas, colons and opening brackets outside strings, counted character by character."""
    found, inside, escaped = 0, False, False
    for letter in text:
        if inside and escaped:
            escaped = False
        elif inside and letter == "\\":
            escaped = True
        elif letter == '"':
            inside = not inside
        elif not inside:
            found += letter in ",:[{"
    return found


VALUES = st.recursive(
    st.none() | st.integers() | st.text() | st.text('\\"\n,[{:a', max_size=30),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('\\",:'), inner),
)


@given(VALUES, st.booleans())
def test_values_are_counted_whatever_the_strings_hold_and_wherever_a_slice_ends(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only)
    for size in (1, 2, 3, 7, 1 << 18):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("app.api.body.SLICE", size)
            assert not has_more_values(text.encode(), marks(text), int), size
            assert has_more_values(text.encode(), marks(text) - 1, int), size


@pytest.mark.parametrize("item", ["7", '["a"]', '{"a": 1}', '"a"'])
def test_a_body_of_very_many_values_is_refused_before_it_is_parsed(fake, item, monkeypatch):
    client = create_app(Settings(), fake).test_client()
    monkeypatch.setattr("app.api.body.orjson", SimpleNamespace(loads=lambda _: pytest.fail("it was parsed")))
    body = f'{{"input": "a", "more": [{", ".join([item] * 100_001)}]}}'.encode()
    answer = client.post("/api/embed", data=body, content_type="application/json")
    assert "more than 100000 JSON values" in refused(answer, 400)["error"]


def test_a_body_of_long_texts_is_not(fake):
    client = create_app(Settings(model_name="fake"), fake).test_client()
    text = '1,2,[3]:{4} "quoted" \\ and so on ' * 2000
    assert client.post("/api/embed", json={"input": [text] * 20}).status_code == 200


def test_a_large_body_lets_questions_go_first(fake):
    client = create_app(Settings(model_name="fake"), fake).test_client()
    client.post("/api/embed", json={"input": "a"})
    assert fake.gave_way == 0
    client.post("/api/embed", json={"input": ["a" * 900_000] * 5})
    assert 8 <= fake.gave_way <= 12  # once per megabyte when it is read, and once when it is scanned


def test_a_large_answer_lets_questions_go_first(fake):
    client = create_app(Settings(model_name="fake"), fake).test_client()
    answer = client.post("/api/embed", json={"input": [str(number) for number in range(2000)]})
    assert 1 <= fake.gave_way <= len(answer.data) >> 17
