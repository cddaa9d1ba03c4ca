"""POST /api/score, /rerank, /v1/rerank, and the outputs of /api/embed that they use, over HTTP."""

import base64

import numpy as np
import pytest
from marshmallow import ValidationError

from app import create_app
from app.api.protocols.score import ScorePairs
from app.config import Settings
from tests.conftest import FakeEncoder

QUERY, TEXTS = "one two", ["four five six", "one two", "two"]


def test_all_outputs_come_in_one_answer(client, fake):
    texts = ["one three", ""]
    body = {"input": texts, "return_sparse": True, "return_colbert_vecs": True}
    found = client.post("/api/embed", json=body).json
    assert list(found) == [
        "model",
        "embeddings",
        "total_duration",
        "load_duration",
        "prompt_eval_count",
        "sparse",
        "colbert_vecs",
    ]
    assert found["sparse"] == [{"indices": [3, 5], "values": [0.375, 0.625]}, {"indices": [], "values": []}]
    assert [np.shape(rows) for rows in found["colbert_vecs"]] == [(3, 16), (1, 16)]
    np.testing.assert_allclose(found["colbert_vecs"][0][0], fake.vector("one"), rtol=1e-6)
    assert len(fake.calls) == 1
    assert fake.calls[0]["outputs"] == {"dense", "sparse", "colbert"}


def test_lexical_weights_can_be_read(client):
    body = {"input": ["one three"], "return_sparse": True, "lexical_weights": "tokens", "return_dense": False}
    found = client.post("/api/embed", json=body).json
    assert found["sparse"] == [{"3 letters": 0.375, "5 letters": 0.625}]
    assert found["embeddings"] == []


def test_multi_vectors_in_base64_tell_their_shape(client, fake):
    body = {"input": "one three", "return_colbert_vecs": True, "encoding_format": "base64"}
    (found,) = client.post("/api/embed", json=body).json["colbert_vecs"]
    assert found["shape"] == [3, 16]
    rows = np.frombuffer(base64.b64decode(found["data"]), "<f4").reshape(found["shape"])
    np.testing.assert_array_equal(rows, [fake.vector(word) for word in ("one", "three", "</s>")])


@pytest.mark.parametrize(
    ("encoding", "dtype", "width"), [("int8", np.int8, 16), ("ubinary", np.uint8, 2), ("binary", np.int8, 2)]
)
def test_multi_vectors_in_small_integers(client, encoding, dtype, width):
    body = {"input": "one three", "return_colbert_vecs": True, "encoding_format": encoding}
    (rows,) = client.post("/api/embed", json=body).json["colbert_vecs"]
    assert np.shape(rows) == (3, width)
    assert np.asarray(rows, dtype).tolist() == rows


def test_nothing_asked_for_still_counts_tokens(client):
    found = client.post("/api/embed", json={"input": ["a b", "c"], "return_dense": False}).json
    assert found["embeddings"] == []
    assert found["prompt_eval_count"] == 7


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/embed", {"input": "a", "return_sparse": True}),
        ("/api/score", {"pairs": [["a", "b"]]}),
    ],
)
def test_what_the_model_does_not_have_is_refused(client, fake, path, body):
    fake.heads = ("colbert",)
    answer = client.post(path, json=body)
    assert answer.status_code == 422
    assert answer.json["error"] == "this model has no lexical weights"


def test_scores_come_for_every_pair(client, fake):
    pairs = [[QUERY, text] for text in TEXTS]
    found = client.post("/api/score", json={"pairs": pairs}).json["scores"]
    assert list(found) == ["dense", "sparse", "colbert", "sparse+dense", "colbert+sparse+dense"]
    dense = [float(fake.vector(QUERY) @ fake.vector(text)) for text in TEXTS]
    np.testing.assert_allclose(found["dense"], dense, atol=1e-6)
    assert found["sparse"] == pytest.approx([9 / 64] * 3)
    assert found["colbert"][1] == pytest.approx(1)
    together = [
        0.4 * d + 0.2 * s + 0.4 * c for d, s, c in zip(dense, found["sparse"], found["colbert"], strict=True)
    ]
    np.testing.assert_allclose(found["colbert+sparse+dense"], together, atol=1e-6)
    texts = [text for call in fake.calls for text in call["texts"]]
    assert sorted(texts) == sorted({QUERY, *TEXTS}), "each text is encoded once"
    same = client.post("/api/score", json={"query": QUERY, "passages": TEXTS}).json
    assert same["scores"] == found


def test_weights_change_the_hybrid_scores_only(client):
    body = {"query": QUERY, "passages": TEXTS}
    usual = client.post("/api/score", json=body).json["scores"]
    found = client.post("/api/score", json=body | {"weights": [0, 0, 1]}).json["scores"]
    assert found["colbert+sparse+dense"] == found["colbert"] == usual["colbert"]
    assert found["sparse+dense"] == [0, 0, 0]
    assert found["dense"] == usual["dense"]


@pytest.mark.parametrize(
    ("weights", "same"),
    [
        ([1e308, 1e308, 1e308], [1, 1, 1]),  # their sum is more than a float can hold
        ([1e308, 5e307, 0], [2, 1, 0]),
        ([5e-324, 5e-324, 5e-324], [1, 1, 1]),
        ([0, 0, 5e-324], [0, 0, 1]),
        ([1e-20, 1e-20, 1e308], [1, 1, 1e30]),
    ],
)
def test_only_the_ratio_of_weights_counts(client, weights, same):
    body = {"query": QUERY, "passages": TEXTS}
    expected = client.post("/api/score", json=body | {"weights": same}).json["scores"]
    found = client.post("/api/score", json=body | {"weights": weights}).json["scores"]
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)


@pytest.mark.parametrize("number", [np.inf, np.nan])
def test_weights_are_finite(app, number):
    """JSON has no such numbers, and its parser rejects too large ones; the check does not rely on that."""
    with app.app_context(), pytest.raises(ValidationError, match="three finite numbers"):
        ScorePairs.checked({"pairs": [], "weights": [1, 1, number]})


def test_a_weight_too_large_for_a_float_is_refused(client):
    answer = client.post(
        "/api/score", data='{"pairs": [], "weights": [1, 1, 1e999]}', content_type="application/json"
    )
    assert answer.status_code == 400
    assert "infinity" in answer.json["error"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/api/score", {}, "pairs"),
        ("/api/score", {"query": "a"}, "passages"),
        ("/api/score", {"pairs": [["a", "b"]], "query": "a"}, "pairs"),
        ("/api/score", {"pairs": [["a", "b", "c"]]}, "pairs"),
        ("/api/score", {"pairs": [["a", 1]]}, "pairs"),
        ("/api/score", {"pairs": "a"}, "pairs"),
        ("/api/score", {"pairs": [["a", "b"]] * 65}, "pairs"),
        ("/api/score", {"query": "a", "passages": "b"}, "passages"),
        ("/api/score", {"pairs": [], "weights": [1, 2]}, "weights"),
        ("/api/score", {"pairs": [], "weights": [1, -1, 1]}, "weights"),
        ("/api/score", {"pairs": [], "weights": [True, 1, 1]}, "weights"),
        ("/rerank", {"texts": ["a"]}, "query"),
        ("/rerank", {"query": "a"}, "texts"),
        ("/rerank", {"query": ["a"], "texts": ["a"]}, "query"),
        ("/rerank", {"query": "a", "texts": ["a"] * 65}, "texts"),
        ("/v1/rerank", {"query": "a", "documents": [{"title": "a"}]}, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["a"], "top_n": 0}, "top_n"),
        ("/v1/rerank", {"query": "a", "documents": ["a"], "top_n": 1 << 31}, "top_n"),
    ],
)
def test_bad_input_is_named(client, path, body, field):
    answer = client.post(path, json=body)
    if path.startswith("/v1/"):
        assert answer.status_code == 400
        assert answer.json["error"]["param"] == field
        assert answer.json["error"]["message"].startswith(field)
        assert answer.json["detail"] == answer.json["message"] == answer.json["error"]["message"]
    elif path == "/rerank":
        assert answer.status_code == 400
        assert answer.json["error"].startswith(field)
        assert answer.json["detail"] == answer.json["message"] == answer.json["error"]
    else:
        assert answer.status_code == 422
        assert answer.json["error"].startswith(field)


def test_a_text_of_a_pair_may_have_so_many_characters(fake):
    client = create_app(Settings(model_name="fake", max_characters=5), encoder=fake).test_client()
    assert client.post("/api/score", json={"pairs": [["a", "five5"]]}).status_code == 200
    answer = client.post("/api/score", json={"pairs": [["a", "b"], ["sixsix", "b"]]})
    assert answer.status_code == 422
    assert answer.json["error"] == "pairs: pair 1 has 6 characters, the limit is 5"


def test_rerank_orders_as_the_hybrid_score_does(client):
    scores = client.post("/api/score", json={"query": QUERY, "passages": TEXTS}).json["scores"]
    hybrid = scores["colbert+sparse+dense"]
    found = client.post("/rerank", json={"query": QUERY, "texts": TEXTS, "raw_scores": True}).json
    assert [one["index"] for one in found] == list(np.argsort(np.negative(hybrid)))
    assert [one["score"] for one in found] == pytest.approx(sorted(hybrid, reverse=True))
    assert found[0]["index"] == 1
    assert set(found[0]) == {"index", "score"}
    body = {"query": QUERY, "texts": TEXTS, "return_text": True}
    found = client.post("/rerank", json=body).json
    assert found[0]["text"] == TEXTS[1]
    assert all(0 <= one["score"] <= 1 for one in found)


def test_v1_rerank_gives_the_best_and_says_what_by(client, fake):
    body = {
        "model": "fake:latest",
        "query": QUERY,
        "documents": [TEXTS[0], {"text": TEXTS[1]}, TEXTS[2]],
        "top_n": 2,
        "return_documents": True,
    }
    found = client.post("/v1/rerank", json=body).json
    assert found["model"] == "fake:latest"
    assert [one["index"] for one in found["results"]] == [1, 0]
    assert found["results"][0]["document"] == {"text": TEXTS[1]}
    assert found["results"][0]["relevance_score"] > found["results"][1]["relevance_score"]
    assert found["usage"]["total_tokens"] == 4 + 5 + 3
    assert found["model_info"] == {"ranked_by": "colbert+sparse+dense"}
    fake.heads = ()
    plain = client.post("/v1/rerank", json={"query": QUERY, "documents": TEXTS}).json
    assert plain["model_info"] == {"ranked_by": "dense"}
    assert len(plain["results"]) == 3
    assert "document" not in plain["results"][0]


def test_another_model_is_not_served(client):
    body = {"model": "another", "query": QUERY, "documents": TEXTS}
    assert client.post("/v1/rerank", json=body).status_code == 404


def test_a_text_that_may_not_be_cut_is_named(client):
    long = "word " * FakeEncoder.limit
    body = {"query": QUERY, "texts": ["short", long], "truncate": False}
    answer = client.post("/rerank", json=body)
    assert answer.status_code == 400
    assert answer.json["error"].startswith("texts: text 1 has 10 tokens")
    assert client.post("/rerank", json=body | {"truncate": True}).status_code == 200
