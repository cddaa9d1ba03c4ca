"""Infinity's paths without /v1, the requests of Weaviate to its inference container, and Xinference."""

import logging

import numpy as np
import pytest

TEXTS = ["one two", "three"]


def test_infinitys_paths_have_no_v1(client):
    expected = client.post("/v1/embeddings", json={"input": TEXTS}).json
    for path in ("/embeddings", "/embeddings/"):
        body = {"input": TEXTS, "model": "fake", "dimensions": 0, "modality": "text"}
        assert client.post(path, json=body).json == expected
    assert (
        len(client.post("/embeddings", json={"input": "a", "dimensions": 4}).json["data"][0]["embedding"])
        == 4
    )
    answer = client.post("/embeddings", json={"input": TEXTS, "modality": "image"})
    assert answer.status_code == 400
    assert answer.json["error"]["param"] == "modality"


def test_infinitys_client_without_a_model_means_the_served_one(client):
    found = client.post("/embeddings", json={"input": "a", "model": "default/not-specified"}).json
    assert found["model"] == "fake"


def test_infinitys_models_tell_how_much_waits(client, fake):
    fake.turns(waiting={"interactive": 1024, "bulk": 64512})
    (model,) = client.get("/models").json["data"]
    assert (model["id"], model["owned_by"]) == ("fake", "infinity")
    assert model["stats"]["queue_fraction"] == 0.25
    assert model["stats"]["queue_absolute"] == 65536
    assert client.get("/models/fake").json == model
    assert client.get("/v1/models").json["data"][0]["owned_by"] == "local"


def test_weaviate_gets_a_vector(client):
    (expected,) = client.post("/api/embed", json={"input": "one two"}).json["embeddings"]
    body = {
        "text": "one two",
        "dims": 0,
        "vector": None,
        "error": "",
        "config": {"pooling_strategy": "masked_mean"},
    }
    for path in ("/vectors", "/vectors/"):
        found = client.post(path, data=client.application.json.dumps(body)).json  # without a content type
        np.testing.assert_array_equal(found["vector"], expected)
        assert (found["text"], found["dim"], found["dims"]) == ("one two", 16, 16)
    assert client.post("/vectors", json={}).json["error"].startswith("text: is required")


def test_weaviate_waits_until_it_is_ready(client, fake):
    assert client.get("/.well-known/ready").status_code == 204
    assert client.get("/meta").json == {
        "model": "fake",
        "dimensions": 16,
        "max_tokens": 8,
        "embedding_space": "000000000000.mean.fp32.8.1",
    }
    fake.turns(ready=False)
    answer = client.get("/.well-known/ready")
    assert (answer.status_code, answer.json["error"]) == (503, "the model is not loaded")
    assert client.get("/.well-known/live").status_code == 204


def test_weaviates_checks_are_like_any_health_check(app, client, fake, caplog):
    """They need no seat and are not logged."""
    app.extensions["seats"].threads = 0
    fake.turns(full=frozenset({"interactive"}))
    with caplog.at_level(logging.INFO, "app.api.request_log"):
        assert client.get("/.well-known/live").status_code == 204
        assert client.get("/.well-known/ready/").status_code == 204
    assert not caplog.records


@pytest.mark.parametrize("path", ["/.well-known/ready", "/.well-known/live"])
def test_weaviate_asks_that_without_a_key(fake, path):
    from app import create_app
    from app.config import Settings

    client = create_app(Settings(api_keys=("secret",)), fake).test_client()
    assert client.get(path).status_code == 204
    assert client.post("/vectors", json={"text": "a"}).status_code == 401


def test_xinference_asks_whether_to_log_in_and_what_the_model_is_for(client):
    assert client.get("/v1/cluster/auth").json == {"auth": False}
    found = client.get("/v1/models/fake").json
    assert (found["model_type"], found["dimensions"], found["max_tokens"]) == ("embedding", 16, 8)
