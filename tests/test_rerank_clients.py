"""The same ranking in each client's shape: at every path, the fields of the body decide which."""

import pytest

from app import create_app
from app.config import Settings

QUERY = "one"
TEXTS = ["one two", "three", "four four four"]


@pytest.fixture
def order(client):
    found = client.post("/v1/rerank", json={"query": QUERY, "documents": TEXTS}).json
    return [(one["index"], one["relevance_score"]) for one in found["results"]]


@pytest.mark.parametrize("path", ["/rerank", "/reranker/rerank", "/v1/rerank"])
def test_texts_are_answered_as_tei_does(client, order, path):
    found = client.post(path, json={"query": QUERY, "texts": TEXTS}).json
    assert [(one["index"], one["score"]) for one in found] == order


@pytest.mark.parametrize("path", ["/rerank", "/api/rerank", "/v1/rerank", "/v2/rerank"])
def test_documents_are_answered_as_jina_and_cohere_do(client, order, path):
    found = client.post(path, json={"query": QUERY, "documents": TEXTS, "return_documents": "true"}).json
    assert [(one["index"], one["relevance_score"]) for one in found["results"]] == order
    assert [one["document"]["text"] for one in found["results"]] == [TEXTS[index] for index, _ in order]


def test_the_second_protocol_has_documents_unasked(client):
    """vLLM returns them too, and MaxKB reads them."""
    body = {"query": QUERY, "documents": TEXTS}
    assert all(
        one["document"]["text"] in TEXTS for one in client.post("/v2/rerank", json=body).json["results"]
    )
    body["return_documents"] = False
    assert not any("document" in one for one in client.post("/v2/rerank", json=body).json["results"])


def test_raw_scores_are_left_as_they_are_in_either_shape(client, fake):
    fake.heads = ()  # the scores are cosines, some of them below 0
    texts = client.post("/rerank", json={"query": QUERY, "texts": TEXTS, "raw_scores": True}).json
    found = client.post("/rerank", json={"query": QUERY, "documents": TEXTS, "raw_scores": True}).json
    raw = [one["score"] for one in texts]
    assert [one["relevance_score"] for one in found["results"]] == raw
    assert min(raw) < 0
    bounded = client.post("/rerank", json={"query": QUERY, "documents": TEXTS}).json["results"]
    assert [one["relevance_score"] for one in bounded] == [max(0, score) for score in raw]


@pytest.mark.parametrize("body", [{"texts": TEXTS}, {"documents": TEXTS}])
def test_another_model_is_refused_in_either_shape(client, body):
    answer = client.post("/rerank", json={"query": QUERY, "model": "another", **body})
    assert (answer.status_code, answer.json["error_type"]) == (404, "Validation")
    assert (
        client.post("/rerank", json={"query": QUERY, "model": "default/not-specified", **body}).status_code
        == 200
    )


def test_errors_have_the_types_of_their_protocols(fake):
    client = create_app(Settings(model_name="fake", api_keys=("key",)), fake).test_client()
    assert client.post("/rerank", json={}).json["error_type"] == "Unauthorized"
    assert client.post("/v1/rerank", json={}).json["error"]["type"] == "authentication_error"
    fake.turns(full=frozenset({"interactive", "bulk"}))
    key = {"Authorization": "Bearer key"}
    assert client.post("/rerank", json={}, headers=key).json["error_type"] == "Overloaded"
    assert client.post("/v1/rerank", json={}, headers=key).json["error"]["type"] == "overloaded_error"


def test_top_k_is_answered_as_voyage_does(client, order):
    found = client.post("/v1/rerank", json={"query": QUERY, "documents": TEXTS, "top_k": 2}).json
    assert [(one["index"], one["relevance_score"]) for one in found["data"]] == order[:2]
    assert "results" not in found


def test_weaviates_reranker_gets_scores(client, order):
    body = {"query": QUERY, "documents": TEXTS, "property": ""}
    found = client.post("/rerank", data=client.application.json.dumps(body)).json  # without a content type
    assert [(one["document"], one["score"]) for one in found["scores"]] == [
        (TEXTS[index], score) for index, score in order
    ]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_both_are_too_much(client, path):
    answer = client.post(path, json={"query": QUERY, "documents": TEXTS, "texts": TEXTS})
    assert answer.status_code == 400
    assert answer.json["detail"] == "texts: cannot be given together with documents"


@pytest.mark.parametrize("body", [{"texts": TEXTS}, {"documents": TEXTS}])
@pytest.mark.parametrize(
    ("sent", "side"),
    [
        ({}, "right"),
        ({"truncation_direction": "Left"}, "left"),
        ({"truncation_direction": "Right"}, "right"),
        ({"truncate": False, "truncation_direction": "left"}, None),
        ({"truncate": "START"}, "left"),
    ],
)
def test_texts_are_cut_where_asked(client, fake, body, sent, side):
    assert client.post("/rerank", json={"query": QUERY, **body, **sent}).status_code == 200
    assert fake.calls[-1]["truncate"] == side
