"""The endpoints of Ollama, OpenAI and text-embeddings-inference, with a fake encoder."""

import base64
import json
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from app.api.protocols.tei import DTYPES
from app.engine.embeddings import Precision

TEXTS = ["one two", "three"]


@pytest.fixture
def direct(client):
    return client.post("/api/embed", json={"input": TEXTS}).json["embeddings"]


def test_ollamas_clients_find_it_running(client):
    assert client.get("/").text == "Ollama is running"
    assert client.get("/", headers={"Accept": "*/*"}).text == "Ollama is running"
    assert client.head("/").status_code == 200
    assert client.get("/api/version").json == {"version": "0.1.0"}


def test_the_model_is_listed(client):
    (model,) = client.get("/api/tags").json["models"]
    assert model["name"] == model["model"] == "fake:latest"
    assert model["details"]["quantization_level"] == "FP32"
    client.application.config["EMBED"] = replace(client.application.config["EMBED"], model_aliases=("m3",))
    assert [model["name"] for model in client.get("/api/tags").json["models"]] == ["fake:latest", "m3:latest"]
    (loaded,) = client.get("/api/ps").json["models"]
    assert loaded["context_length"] == 8
    assert loaded["digest"] == model["digest"]


@pytest.mark.parametrize("body", [{"model": "fake:latest"}, {"name": "fake"}, {"model": "ollama/fake"}, {}])
def test_the_model_is_shown(client, body):
    found = client.post("/api/show", json=body).json
    assert found["capabilities"] == ["embedding"]
    info = found["model_info"]
    kind = info["general.architecture"]
    assert (info[f"{kind}.context_length"], info[f"{kind}.embedding_length"]) == (8, 16)
    assert info[f"{kind}.pooling_type"] == 1
    assert info["outputs"] == ["dense", "sparse", "colbert"]


@pytest.mark.parametrize("path", ["/api/show", "/api/pull", "/api/embeddings", "/api/embed"])
def test_another_model_is_404_in_ollamas_shape(client, path):
    answer = client.post(path, json={"model": "llama3", "input": "a", "prompt": "a"})
    assert answer.status_code == 404
    assert answer.json["error"] == "model 'llama3' not found: 'fake' is served here"


def test_the_older_embeddings(client, fake):
    found = client.post("/api/embeddings", json={"model": "fake", "prompt": "one two", "keep_alive": -1})
    np.testing.assert_allclose(found.json["embedding"], fake.vector("one two"), rtol=1e-6)
    for nothing in ("", None):
        assert client.post("/api/embeddings", json={"prompt": nothing}).json == {"embedding": []}


def test_what_ollamas_clients_send_along_is_ignored(client, direct):
    options = dict.fromkeys(["mirostat", "num_ctx", "temperature", "top_p"])
    body = {"model": "fake:latest", "input": TEXTS, "options": options, "truncate": True}
    for keep_alive in (-1, "5m", 0, None):
        found = client.post("/api/embed", json=body | {"keep_alive": keep_alive})
        assert found.json["embeddings"] == direct


def test_pulling_the_served_model_succeeds(client):
    lines = client.post("/api/pull", json={"model": "fake"}).text.splitlines()
    assert json.loads(lines[-1]) == {"status": "success"}
    assert client.post("/api/pull", json={"model": "fake", "stream": False}).json == {"status": "success"}


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat", "/v1/chat/completions", "/v1/completions"])
def test_text_is_not_generated(client, path):
    answer = client.post(path, json={"model": "fake", "prompt": "hello"})
    assert answer.status_code == 400
    told = answer.json["error"]["message"] if path.startswith("/v1/") else answer.json["error"]
    assert "only embeds" in told


def test_openais_embeddings(client, direct):
    body = {"model": "fake", "input": TEXTS, "user": "somebody", "drop_params": True}
    found = client.post("/v1/embeddings", json=body).json
    assert found["object"] == "list"
    assert [(row["object"], row["index"]) for row in found["data"]] == [("embedding", 0), ("embedding", 1)]
    assert [row["embedding"] for row in found["data"]] == direct
    assert found["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    encoded = client.post("/v1/embeddings", json=body | {"encoding_format": "BASE64"}).json["data"]
    rows = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in encoded]
    np.testing.assert_array_equal(rows, np.array(direct, np.float32))
    short = client.post("/v1/embeddings", json=body | {"dimensions": 4}).json["data"][0]["embedding"]
    assert len(short) == 4
    assert np.linalg.norm(short) == pytest.approx(1)


def test_openais_models(client):
    (model,) = client.get("/v1/models").json["data"]
    assert model["id"] == "fake"
    assert client.get("/v1/models/openai/fake").json["object"] == "model"


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"input": [[1, 2], [3]]}, "input", "check_embedding_ctx_length=False"),
        ({"input": [1, 2]}, "input", "check_embedding_ctx_length=False"),
        ({"input": [[1, 2], []]}, "input", "check_embedding_ctx_length=False"),
        ({"input": [["a"]]}, "input", "text 0 must be a string, not a list"),
        ({"input": [["a", "b"]]}, "input", "text 0 must be a string, not a list"),
        ({"input": [[]]}, "input", "text 0 must be a string, not a list"),
        ({"input": [[1, "a"]]}, "input", "text 0 must be a string, not a list"),
        ({"input": [[1], "a"]}, "input", "text 0 must be a string, not a list"),
        ({"input": [[True]]}, "input", "text 0 must be a string, not a list"),
        ({"input": [[[1]]]}, "input", "text 0 must be a string, not a list"),
        ({"input": [1, "a"]}, "input", "text 0 must be a string, not a number"),
        ({"input": [1.5]}, "input", "text 0 must be a string, not a number"),
        ({"input": [True]}, "input", "text 0 must be a string, not a boolean"),
        ({"input": ["a", 1]}, "input", "text 1 must be a string, not a number"),
        ({"input": []}, "input", "must not be empty"),
        ({}, "input", "is required"),
        ({"input": {"a": 1}}, "input", "must be a string or a list of strings"),
        ({"input": ["a"] * 65}, "input", "the limit is 64"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "float, base64"),
        ({"input": "a", "encoding_format": 3}, "encoding_format", "must be a string"),
        ({"input": "a", "dimensions": 17}, "dimensions", "at most 16"),
        ({"input": "a", "dimensions": 0}, "dimensions", "positive"),
        ({"input": "a " * 9, "truncate": False}, "input", "has 11 tokens"),
    ],
)
def test_openais_errors(client, body, field, words):
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code == 400
    error = answer.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", field)
    assert words in error["message"]


def test_openais_other_errors(client):
    answer = client.post("/v1/embeddings", json={"model": "gpt-4", "input": "a"})
    assert answer.status_code == 404
    assert answer.json["error"]["code"] == "model_not_found"
    assert "'fake' is served here" in answer.json["error"]["message"]
    assert client.get("/v1/models/gpt-4").json["error"]["code"] == "model_not_found"
    assert client.get("/v1/nothing").json["error"]["code"] is None
    broken = client.post("/v1/embeddings", data="{", content_type="application/json")
    assert broken.status_code == 400
    assert "not valid JSON" in broken.json["error"]["message"]


@pytest.mark.parametrize("path", ["/embed", "/"])
def test_teis_embed(client, direct, path):
    assert client.post(path, json={"inputs": TEXTS}).json == direct
    assert client.post(path, json={"inputs": TEXTS[0], "truncate": None}).json == direct[:1]
    assert np.shape(client.post(path, json={"inputs": TEXTS, "dimensions": 4}).json) == (2, 4)
    long = client.post(path, json={"inputs": TEXTS, "normalize": False}).json
    np.testing.assert_allclose(long, 2 * np.array(direct), rtol=1e-6)
    body = {"inputs": TEXTS, "normalize": False, "dimensions": 4}
    np.testing.assert_allclose(client.post(path, json=body).json, np.array(long)[:, :4], rtol=1e-6)


def test_teis_embed_sparse(client):
    found = client.post("/embed_sparse", json={"inputs": ["one three", ""]}).json
    assert found == [[{"index": 3, "value": 0.375}, {"index": 5, "value": 0.625}], []]


def test_teis_tokenize(client):
    (tokens,) = client.post("/tokenize", json={"inputs": "one three"}).json
    assert [token["text"] for token in tokens] == ["<s>", "one", "three", "</s>"]
    assert tokens[2] == {"id": 5, "text": "three", "special": False, "start": 4, "stop": 9}
    (bare,) = client.post("/tokenize", json={"inputs": "one three", "add_special_tokens": False}).json
    assert bare == tokens[1:-1]


def test_teis_info(client):
    found = client.get("/info").json
    assert (found["model_id"], found["model_dtype"]) == ("fake", "float32")
    assert found["model_type"]["embedding"] == {"pooling": "mean"}
    # Dify looks only at the first type, so it has a different URL for reranking.
    assert list(found["model_type"]) == ["embedding", "reranker"]
    assert list(client.get("/reranker/info").json["model_type"]) == ["reranker", "embedding"]
    assert (found["max_input_length"], found["max_client_batch_size"]) == (8, 64)


def test_teis_info_in_every_precision(client, fake, monkeypatch):
    before = fake.info
    for precision in get_args(Precision):
        monkeypatch.setattr(type(fake), "info", replace(before, precision=precision))
        for path in ("/info", "/reranker/info"):
            assert client.get(path).json["model_dtype"] == DTYPES[precision]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inputs": [1]},
        {"inputs": "a", "prompt_name": "query"},
        {"inputs": "a", "truncation_direction": "Both"},
        {"inputs": "a " * 9, "truncate": False},
    ],
)
def test_teis_errors(client, body):
    answer = client.post("/embed", json=body)
    assert answer.status_code == 422
    assert set(answer.json) == {"error", "error_type"}
    assert answer.json["error_type"] == "Validation"
