"""The OpenAPI document, whether the server follows it, and the pages that show it."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import openapi_spec_validator
import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from app import create_app
from app.api.protocols.embed import EmbedRequest
from app.config import Settings
from app.engine.encodings import ENCODINGS
from app.engine.errors import Overloaded
from tests.conftest import FakeEncoder, FakeReranker

STATIC = Path(__file__).parent.parent / "app" / "static"
# Pages, their files, and endpoints that only refuse; everything else must be documented.
PAGES = ("docs.docs", "docs.redoc", "flasgger.", "page.static", "ollama.generate", "openai.generate")


class Roomy(FakeEncoder):
    """The document cannot say how many tokens a text has."""

    limit = 10**6


class RoomyReranker(FakeReranker):
    limit = 10**6


fake_app = create_app(Settings(reranker_name="fake-reranker"), encoder := Roomy(), RoomyReranker(encoder))
schema = schemathesis.openapi.from_wsgi("/apispec_1.json", fake_app)


@schema.hook
def map_body(context, body):
    """The document cannot say how wide the model's vectors are: it is made before one is loaded.

    Nor can it say that strict bodies forbid other fields.
    """
    if isinstance(body, dict):
        for name in ("dimensions", "output_dimension"):
            if isinstance(body.get(name), int):
                body[name] = min(body[name], FakeEncoder.width)
        if body.get("strict") is True:
            body["strict"] = False
    return body


def examples(count: int) -> hypothesis_settings:
    return hypothesis_settings(
        max_examples=count, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
    )


@schema.parametrize()
@examples(16)
def test_the_server_keeps_to_its_document(case):
    case.call_and_validate()


@pytest.mark.slow
@schema.parametrize()
@examples(100)
def test_the_server_keeps_to_its_document_whatever_is_asked(case):
    case.call_and_validate()


@pytest.fixture
def document(client):
    return client.get("/apispec_1.json").json


def test_the_document_is_valid_openapi(document):
    assert document["openapi"] == "3.0.3"
    openapi_spec_validator.validate(document)


def test_every_endpoint_is_documented(app):
    missing = [
        rule.rule
        for rule in app.url_map.iter_rules()
        if not rule.endpoint.startswith(PAGES)
        and not hasattr(app.view_functions[rule.endpoint], "__apispec_doc__")
    ]
    assert not missing


def test_the_document_says_what_is_validated(document, settings):
    request = document["components"]["schemas"]["EmbedRequest"]
    assert request["required"] == ["input"]
    assert set(request["properties"]) == set(EmbedRequest().fields)
    text, texts = request["properties"]["input"]["oneOf"]
    assert text == {"type": "string"}
    assert texts == {"type": "array", "items": {"type": "string"}, "maxItems": settings.max_texts}
    assert request["properties"]["encoding_format"]["enum"] == [*ENCODINGS, None]
    assert request["properties"]["truncate"]["oneOf"][0] == {"type": "boolean"}
    assert request["properties"]["truncate"]["default"] is True


def test_the_examples_are_answered_as_they_say(client, document):
    body = document["paths"]["/api/embed"]["post"]["requestBody"]["content"]["application/json"]
    assert len(body["examples"]) >= 3
    for name, example in body["examples"].items():
        expected = 404 if name == "refusal" else 200
        assert client.post("/api/embed", json=example["value"]).status_code == expected, name


SWAGGER, REDOC = "swagger-ui-bundle.js", "redoc.standalone.js"


def test_the_pages_load_nothing_from_elsewhere(client):
    pages = {"/apidocs/": SWAGGER, "/apidocs": SWAGGER, "/docs": SWAGGER, "/redoc": REDOC, "/redoc/": REDOC}
    for path, script in pages.items():
        page = client.get(path)
        assert page.status_code == 200
        assert script in page.text
        assert "http://" not in page.text
        assert "https://" not in page.text
        assert "script-src 'self';" in page.headers["Content-Security-Policy"]


def test_no_path_redirects(app, client):
    """A redirect by Werkzeug has an HTML body, and a Location with the host name that the client sent."""
    for rule in app.url_map.iter_rules():
        path = re.sub("<[^>]*>", "x", rule.rule)
        for variant in (path, f"/{path}", path.replace("/", "//"), f"{path}/", path.rstrip("/") or "/"):
            for method in ("GET", "POST"):
                at = {"PATH_INFO": variant}  # in a URL, two slashes would begin a host
                with client.open(
                    "/", method=method, headers={"Host": "evil.example"}, environ_overrides=at
                ) as answer:
                    assert not 300 <= answer.status_code < 400, f"{method} {variant}"
                    assert "Location" not in answer.headers
                    if answer.status_code >= 400:
                        assert {"error", "message"} & set(answer.json)


def test_flasggers_own_old_pages_are_not_served(client):
    assert client.get("/flasgger_static/swagger-ui-bundle.js").status_code == 404
    assert client.get("/apidocs/?configUrl=https://example.org/x.json").status_code == 200
    with client.get("/assets/vendor/swagger-ui/swagger-ui-bundle.js") as bundle:
        assert b"5.34.0" in bundle.data


def test_vendored_files_are_what_they_were():
    sums = (STATIC / "vendor" / "SHA256SUMS").read_text().split("\n")
    known = {name: digest for digest, name in (line.split() for line in sums if line)}
    present = {
        str(file.relative_to(STATIC / "vendor")): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (STATIC / "vendor").rglob("*.*s*")
        if file.suffix in (".js", ".css")
    }
    assert present == known


def example(document, path, status, name):
    answers = document["paths"][path]["post"]["responses"]
    return answers[str(status)]["content"]["application/json"]["examples"][name]["value"]


@pytest.mark.parametrize(
    ("path", "busy", "wrong"),
    [("/api/embed", 503, 422), ("/v1/embeddings", 503, 400), ("/embed", 503, 422), ("/v1/embed", 503, 422)],
)
def test_each_refusal_has_its_own_example_and_it_is_what_the_server_says(settings, fake, path, busy, wrong):
    served = create_app(replace(settings, max_body_bytes=100, model_name="bge-m3", api_keys=("a-key",)), fake)
    client = served.test_client()
    document = client.get("/apispec_1.json").json
    headers = {"Authorization": "Bearer a-key"}

    def refused(**sent):
        return client.post(path, headers=headers, **sent).json

    assert refused(json=[]) == example(document, path, 400, "not JSON")
    assert refused(json={}) == example(document, path, wrong, "a wrong field")
    assert refused(data="x", content_type="text/plain") == example(document, path, 415, "another type")
    large = example(document, path, 413, "too large")
    assert repr(refused(json={"input": "x" * 100})) == repr(large).replace("33554432", "100")
    assert client.post(path, json={}).json == example(document, path, 401, "no key")
    fake.fails = Overloaded(262200, 262144, 30)
    field = {"/embed": "inputs", "/v1/embed": "texts"}.get(path, "input")
    value = ["a text"] if path == "/v1/embed" else "a text"
    assert refused(json={field: value}) == example(document, path, busy, "busy")
    if path != "/embed":  # it names no model
        body = {field: value, "model": "another"}
        assert refused(json=body) == example(document, path, 404, "another model")


def test_what_needs_a_key_says_so_where_there_are_keys(settings, fake, document):
    assert "security" not in document
    client = create_app(replace(settings, api_keys=("a-key",)), fake).test_client()
    locked = client.get("/apispec_1.json").json
    openapi_spec_validator.validate(locked)
    assert locked["security"] == [{"Bearer": []}, {"X-API-Key": []}]
    assert set(locked["components"]["securitySchemes"]) == {"Bearer", "X-API-Key"}
    for path, operations in locked["paths"].items():
        for method, operation in operations.items():
            url = re.sub("{[^}]*}", "x", path)
            refused = client.open(url, method=method.upper(), json={}).status_code == 401
            assert ("401" in operation["responses"]) == refused, path
            assert (operation.get("security") != []) == refused, path


def test_our_own_endpoints_come_first_and_required_fields_too(document):
    names = [tag["name"] for tag in document["tags"]]
    assert names[:3] == ["Embeddings", "Ranking", "Health"]
    assert next(iter(document["components"]["schemas"]["EmbedRequest"]["properties"])) == "input"
