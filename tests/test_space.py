"""The name of an embedding space: in headers and descriptions, and what a request may expect of it."""

import re
from dataclasses import replace

import numpy as np
import pytest

from app import create_app
from app.api.answer import SMALL_ANSWER
from app.config import Settings
from app.engine.checkpoint import read_checkpoint
from app.engine.export import find_export
from app.engine.native.export import NativeExporter
from app.engine.processor import cpu_features, kind_of
from app.engine.space import NUMERICS, rounding
from tests.conftest import FakeEncoder

HEADER = "X-Embedding-Space"
MEAN, CLS = "000000000000.mean.fp32.8.1", "000000000000.cls.fp32.8.1"
VECTORS = {
    "/api/embed": {"input": "a"},
    "/api/embeddings": {"prompt": "a"},
    "/v1/embeddings": {"input": "a"},
    "/embeddings": {"input": "a"},
    "/v1/embed": {"texts": ["a"]},
    "/v2/embed": {"texts": ["a"], "embedding_types": ["float"]},
    "/embed": {"inputs": "a"},
    "/": {"inputs": "a"},
    "/embed_sparse": {"inputs": "a"},
    "/vectors": {"text": "a"},
}
SCORES = {
    "/api/score": {"pairs": [["a", "b"]]},
    "/rerank": {"query": "a", "texts": ["b"]},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/v2/rerank": {"query": "a", "documents": ["b"]},
}


def test_vectors_come_with_the_name_of_their_space(client):
    for path, body in VECTORS.items():
        response = client.post(path, json=body)
        assert (response.status_code, response.headers[HEADER]) == (200, MEAN), path


def test_the_name_has_the_requests_own_pooling(client):
    for path, body in VECTORS.items():
        response = client.post(path, json=body | {"pooling": "cls"})
        assert response.headers[HEADER] == (MEAN if path == "/embed_sparse" else CLS), path


def test_a_client_that_mixes_two_servers_is_told_so(client, settings):
    """Two servers of the same model and different pooling: the second refuses, and computes nothing."""
    fake = FakeEncoder()
    fake.pooling = "cls"
    other = create_app(settings, fake).test_client()
    for path, body in VECTORS.items():
        first = client.post(path, json=body, headers={HEADER: MEAN})
        assert first.status_code == 200, path
        second = other.post(path, json=body, headers={HEADER: first.headers[HEADER]})
        assert second.status_code == 409, path
        assert MEAN in second.text
        assert CLS in second.text
        assert HEADER not in second.headers
        assert second.headers["X-Should-Retry"] == "false"
    assert not fake.calls
    for path, body in VECTORS.items():
        assert other.post(path, json=body, headers={HEADER: CLS}).status_code == 200, path


def test_each_protocol_refuses_in_its_own_shape(client):
    said = (
        f"the embedding space {CLS!r} is expected, but this answer would be in {MEAN!r}: "
        "do not mix their vectors"
    )
    details = {"type": "invalid_request_error", "param": HEADER, "code": None}
    for path, body in {
        "/api/embed": {"error": said, "details": {HEADER: [said]}},
        "/v1/embeddings": {"error": {"message": said} | details, "detail": said},
        "/v2/embed": {"message": said},
        "/embed": {"error": said, "error_type": "Validation"},
    }.items():
        assert client.post(path, json=VECTORS[path], headers={HEADER: CLS}).json == body


def test_a_long_or_empty_expectation(client):
    said = client.post("/api/embed", json={"input": "a"}, headers={HEADER: "x" * 5000})
    assert said.status_code == 409
    assert len(said.json["error"]) < 500
    assert client.post("/api/embed", json={"input": "a"}, headers={HEADER: " "}).status_code == 200


def test_answers_that_are_sent_in_pieces_have_it_too(fake):
    fake.vector = lambda text: np.full(fake.width, 0.25, np.float32)
    client = create_app(Settings(max_texts=1 << 14), fake).test_client()
    texts = ["a"] * (SMALL_ANSWER // fake.width + 1)
    with client.post("/api/embed", json={"input": texts}) as response:
        assert response.content_length is None
        assert response.headers[HEADER] == MEAN
    passages = client.post("/api/embed", json={"input": "a b", "chunk": True})
    assert passages.headers[HEADER] == MEAN
    assert client.post("/api/embed", json={"input": "a"}, headers={HEADER: CLS}).status_code == 409


def test_scores_are_of_a_model_and_not_of_a_pooling(client):
    """They hold no vectors, and without `pooling` they have that which the model was trained for."""
    for expected, asked, status in (
        (MEAN, {}, 200),
        (CLS, {}, 200),
        (CLS, {"pooling": "mean"}, 409),
        (MEAN.replace("fp32", "int8-native"), {}, 409),
        (MEAN.replace("0", "5", 1), {}, 409),
    ):
        for path, body in SCORES.items():
            response = client.post(path, json=body | asked, headers={HEADER: expected})
            assert response.status_code == status, (path, expected, asked, response.text)
            assert HEADER not in response.headers


def test_a_cross_encoder_makes_no_vectors(both):
    body = SCORES["/rerank"]
    assert both.post("/rerank", json=body, headers={HEADER: "another"}).status_code == 200
    two_stages = both.post("/rerank", json=body | {"rerank_top": 1}, headers={HEADER: "another"})
    assert two_stages.status_code == 409


def test_descriptions_name_the_space(both):
    assert both.get("/info").json["embedding_space"] == MEAN
    assert "embedding_space" not in both.get("/reranker/info").json
    assert both.post("/api/show", json={}).json["model_info"]["embedding_space"] == MEAN
    assert both.get("/meta").json["embedding_space"] == MEAN
    for path in ("/v1/models", "/models"):
        encoder, reranker = both.get(path).json["data"]
        assert encoder["embedding_space"] == MEAN
        assert "embedding_space" not in reranker


def test_pages_on_other_hosts_may_read_it(settings, fake):
    client = create_app(replace(settings, cors_origins=("http://a.example",)), fake).test_client()
    response = client.post("/api/embed", json={"input": "a"}, headers={"Origin": "http://a.example"})
    assert HEADER in response.headers["Access-Control-Expose-Headers"]


def test_the_document_says_so(client):
    paths = client.get("/apispec_1.json").json["paths"]
    for path in (*VECTORS, *SCORES):
        operation = paths[path]["post"]
        assert [parameter["name"] for parameter in operation["parameters"]] == [HEADER]
        assert "409" in operation["responses"]
        assert (HEADER in operation["responses"]["200"].get("headers", {})) == (path in VECTORS)
    told = {path for path, views in paths.items() if "parameters" in views.get("post", {})}
    assert told - {"/v1/batches"} == {*VECTORS, *SCORES, "/api/rerank", "/reranker/rerank"}


def test_a_precision_says_what_else_decides_its_numbers(load_encoder, tiny_folder):
    checkpoint = read_checkpoint(tiny_folder)
    for engine in ("torch", "openvino", "native"):
        assert rounding(checkpoint, engine, "fp32", None) == ""
    assert rounding(checkpoint, "openvino", "bf16", None) == f"-openvino-{kind_of(cpu_features())}"


@pytest.mark.parametrize("precision", ["int8", "w8a16"])
def test_with_8_bit_weights_the_export_is_in_the_name(load_encoder, tiny_folder, precision):
    """Two machines round a few weights to different neighbours, and then cosines are below 0.9999."""
    encoder = load_encoder(tiny_folder, engine="native", precision=precision)
    checkpoint = read_checkpoint(tiny_folder)
    named = rounding(checkpoint, "native", precision, None)
    assert re.fullmatch("-native-[0-9a-f]{6}", named)
    version = NUMERICS[precision]
    assert encoder.space() == f"{checkpoint.fingerprint[:12]}.mean.{precision}{named}.8192.{version}"
    scales = find_export(checkpoint, NativeExporter(), "int8", None) / "grown.scales.npy"
    kept = scales.read_bytes()
    try:
        scales.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        assert rounding(checkpoint, "native", precision, None) != named
    finally:
        scales.write_bytes(kept)


def test_an_encoder_names_its_space(load_encoder, tiny_folder, engine):
    digest = read_checkpoint(tiny_folder).fingerprint[:12]
    encoder = load_encoder(tiny_folder, **engine)
    assert encoder.space() == encoder.info.space == f"{digest}.mean.fp32.8192.1"
    assert encoder.space("cls") == f"{digest}.cls.fp32.8192.1"
