"""Cohere's protocol, with a fake encoder."""

import base64

import numpy as np
import pytest

TEXTS = ["one two", "three"]


@pytest.fixture
def direct(client):
    return client.post("/api/embed", json={"input": TEXTS}).json["embeddings"]


def test_the_first_protocol_gives_a_list_of_vectors(client, direct):
    found = client.post(
        "/v1/embed", json={"texts": TEXTS, "model": "fake", "input_type": "search_query"}
    ).json
    assert found["embeddings"] == direct
    assert (found["texts"], found["response_type"]) == (TEXTS, "embeddings_floats")
    assert found["meta"] == {"api_version": {"version": "1"}, "billed_units": {"input_tokens": 7}}
    assert found["id"]


def test_the_first_protocol_gives_vectors_by_type(client, direct):
    found = client.post("/v1/embed", json={"texts": TEXTS, "embedding_types": ["float"]}).json
    assert found["embeddings"] == {"float": direct}
    assert found["response_type"] == "embeddings_by_type"


def test_the_second_protocol_gives_vectors_by_type(client, direct):
    types = ["float", "base64", "int8", "binary", "ubinary"]
    answer = client.post(
        "/v2/embed", json={"texts": TEXTS, "embedding_types": types}, headers={"X-Request-ID": "mine"}
    )
    found = answer.json
    assert (found["id"], found["texts"]) == ("mine", TEXTS)
    assert list(found["embeddings"]) == types
    assert found["embeddings"]["float"] == direct
    rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in found["embeddings"]["base64"]]
    np.testing.assert_array_equal(rows, np.array(direct, np.float32))
    for kind in ("int8", "binary", "ubinary"):
        expected = client.post("/api/embed", json={"input": TEXTS, "encoding_format": kind}).json[
            "embeddings"
        ]
        assert found["embeddings"][kind] == expected
    assert client.post("/v2/embed", json={"texts": TEXTS}).json["embeddings"] == {"float": direct}


def test_it_cuts_vectors_and_texts_as_asked(client, fake):
    short = client.post("/v2/embed", json={"texts": TEXTS, "output_dimension": 4}).json["embeddings"]["float"]
    assert np.linalg.norm(short, axis=1) == pytest.approx([1, 1])
    assert np.shape(short) == (2, 4)
    for word, side in (("END", "right"), ("START", "left"), ("NONE", None)):
        client.post("/v2/embed", json={"texts": TEXTS, "truncate": word})
        assert fake.calls[-1]["truncate"] == side


def test_inputs_of_text_are_read(client, direct):
    inputs = [{"content": [{"type": "text", "text": text}]} for text in TEXTS]
    assert client.post("/v2/embed", json={"inputs": inputs}).json["embeddings"]["float"] == direct


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v2/embed", {"inputs": [], "texts": []}, "texts"),
        ("/v2/embed", {"inputs": ["a"]}, "inputs"),
        ("/v2/embed", {"inputs": [{"content": []}]}, "inputs"),
        ("/v2/embed", {"inputs": [{"content": [{"type": "image_url", "image_url": {}}]}]}, "inputs"),
        ("/v2/embed", {"inputs": [{"content": [{"type": "text", "text": 1}]}]}, "inputs"),
        ("/v2/embed", {}, "texts"),
        ("/v2/embed", {"texts": "a"}, "texts"),
        ("/v2/embed", {"texts": ["a"], "embedding_types": ["uint8"]}, "embedding_types"),
        ("/v2/embed", {"texts": ["a"], "embedding_types": "float"}, "embedding_types"),
        ("/v2/embed", {"texts": ["a"], "embedding_types": []}, "embedding_types"),
        ("/v2/embed", {"texts": ["a"], "images": ["data:image/png;base64,"]}, "images"),
        ("/v2/embed", {"texts": ["a"], "max_tokens": 3}, "max_tokens"),
        ("/v2/embed", {"texts": ["a " * 9], "truncate": "NONE"}, "texts"),
        ("/v1/embed", {"texts": [1]}, "texts"),
        ("/v2/rerank", {"query": "a"}, "documents"),
        ("/v2/rerank", {"query": "a", "documents": ["a"], "rank_fields": ["title"]}, "rank_fields"),
    ],
)
def test_bad_input_is_named(client, path, body, field):
    answer = client.post(path, json=body)
    assert answer.status_code in (400, 422)
    assert answer.json["message"].startswith(f"{field}: ")


def test_an_unknown_path_and_model_are_told_in_its_shape(client):
    assert set(client.get("/v2/nothing").json) == {"message"}
    answer = client.post("/v2/embed", json={"texts": ["a"], "model": "embed-v4.0"})
    assert answer.status_code == 404
    assert "'fake' is served here" in answer.json["message"]


def test_a_text_is_cut_into_tokens(client):
    found = client.post("/v1/tokenize", json={"text": "one three", "model": "fake"}).json
    assert found == {"tokens": [3, 5], "token_strings": ["one", "three"]}
    assert client.post("/v1/tokenize", json={}).json["message"].startswith("text: is required")


def test_rerank_has_all_that_cohere_says(client):
    body = {"model": "fake", "query": "one", "documents": ["one two", "three"], "top_n": 1}
    for path, version in (("/v2/rerank", "2"), ("/v1/rerank", "1")):
        found = client.post(path, json=body, headers={"X-Request-ID": "mine"}).json
        assert found["id"] == "mine"
        assert found["meta"] == {
            "api_version": {"version": version},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": 10, "output_tokens": 0},
        }
        assert len(found["results"]) == 1
