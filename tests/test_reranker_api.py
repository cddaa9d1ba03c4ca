"""Reranking by a cross-encoder, alone and after the hybrid score, on every path and in every shape."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from app import create_app
from app.config import Settings
from app.engine.embeddings import PRIORITIES
from app.engine.errors import NotFinite, Overloaded, TextTooLong, TooLate
from tests.conftest import FakeReranker

NAME, HYBRID = "bge-reranker-v2-m3", "colbert+sparse+dense"
QUERY = "one two"
TEXTS = ["four five six", "two", "one two three", "one two"]
PATHS = ("/rerank", "/api/rerank", "/reranker/rerank", "/v1/rerank", "/v2/rerank")
SHAPES = [(path, "documents") for path in PATHS] + [(path, "texts") for path in PATHS[:-1]]
STAGES = ({}, {"rerank_top": 2})  # one, and two
every_shape = pytest.mark.parametrize(("path", "field"), SHAPES)


def post(client, path, field, texts=TEXTS, **more):
    return client.post(path, json={"query": QUERY, field: texts, **more})


def results(client, path, field, texts=TEXTS, **more) -> list[dict]:
    """The results, each with its score as `score`, whatever the shape calls it."""
    answer = post(client, path, field, texts, **more)
    assert answer.status_code == 200, answer.text
    if field == "texts":
        return answer.json
    rows = answer.json["data" if "top_k" in more else "results"]
    return [{"score": row["relevance_score"], **row} for row in rows]


def order(rows: list[dict]) -> list[int]:
    return [row["index"] for row in rows]


def sentence(answer) -> str:
    error = answer.json["error"]
    return error["message"] if isinstance(error, dict) else error


@pytest.fixture
def logits() -> list[float]:
    return [FakeReranker.logit(QUERY, text) for text in TEXTS]


@pytest.fixture
def hybrid(fake) -> np.ndarray:
    return fake.score([(QUERY, text) for text in TEXTS]).by_name[HYBRID]


@every_shape
def test_it_ranks_where_no_model_is_named(both, reranker, logits, hybrid, path, field):
    assert list(np.argsort(np.negative(logits))) != list(np.argsort(-hybrid)), "else this test says nothing"
    rows = results(both, path, field)
    assert order(rows) == list(np.argsort(np.negative(logits)))
    assert [row["score"] for row in rows] == pytest.approx(
        [1 / (1 + math.exp(-logit)) for logit in sorted(logits, reverse=True)]
    )
    assert not any("scored_by" in row for row in rows)
    assert [call["pairs"] for call in reranker.calls] == [[(QUERY, text) for text in TEXTS]]


NAMES = {
    **{name: name for name in (NAME, NAME.upper(), f"{NAME}:latest", "cross", "Cross:latest")},
    **{name: name for name in (f"BAAI/{NAME}", f"huggingface/BAAI/{NAME}", f"cohere/{NAME}")},
    **dict.fromkeys(["default/not-specified", None], NAME),
}


@every_shape
def test_it_has_names(both, reranker, path, field):
    for count, (asked, told) in enumerate(NAMES.items(), 1):
        answer = post(both, path, field, model=asked)
        assert answer.status_code == 200, asked
        assert len(reranker.calls) == count, asked
        if field == "documents":
            assert answer.json["model"] == told
            assert answer.json["model_info"] == {"ranked_by": "cross-encoder"}


@every_shape
def test_the_encoders_name_means_the_hybrid_score(both, client, reranker, path, field):
    for name in ("fake", "FAKE:latest", "cohere/fake"):
        answer, before = (post(one, path, field, model=name).json for one in (both, client))
        if field == "documents":
            answer["id"] = before["id"] = ""
            assert answer["model_info"] == {"ranked_by": HYBRID}
        assert answer == before
    assert not reranker.calls


def test_bge_m3s_names_mean_the_hybrid_score_of_its_weights(both, fake, reranker):
    assert post(both, "/rerank", "texts", model="BAAI/bge-m3").status_code == 404
    fake.shape = "xlm-roberta", 24, 1024, 250002
    assert post(both, "/rerank", "texts", model="BAAI/bge-m3").status_code == 200
    assert not reranker.calls


@every_shape
def test_an_unknown_model_is_told_both_names(both, client, path, field):
    answer = post(both, path, field, model="another")
    assert answer.status_code == 404
    assert sentence(answer) == f"model 'another' not found: 'fake' and {NAME!r} are served here"
    answer = post(client, path, field, model=NAME)
    assert answer.status_code == 404
    assert sentence(answer) == f"model {NAME!r} not found: 'fake' is served here"


@pytest.mark.parametrize(
    ("served", "asked", "status"),
    [
        ("bge-reranker-base", "BAAI/bge-reranker-base", 200),
        ("BAAI/bge-reranker-large", "bge-reranker-large", 200),
        ("bge-reranker-base", "BAAI/bge-reranker-large", 404),
        ("mine", "mine", 200),
        ("mine", "BAAI/mine", 404),
    ],
)
def test_baais_prefix_means_baais_models_only(fake, reranker, served, asked, status):
    client = create_app(Settings(model_name="fake", reranker_name=served), fake, reranker).test_client()
    assert post(client, "/rerank", "texts", model=asked).status_code == status


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/embed", {"input": "a"}),
        ("/api/score", {"pairs": [["a", "b"]]}),
        ("/api/show", {}),
        ("/v1/embeddings", {"input": "a"}),
        ("/embeddings", {"input": "a"}),
        ("/v2/embed", {"texts": ["a"]}),
    ],
)
def test_it_does_not_embed(both, path, body):
    answer = both.post(path, json=body | {"model": NAME})
    assert answer.status_code == 404
    assert "'fake' is served here" in answer.text
    assert both.post(path, json=body | {"model": "fake"}).status_code == 200


@every_shape
def test_raw_scores_are_logits(both, logits, path, field):
    rows = results(both, path, field, raw_scores=True)
    assert [row["score"] for row in rows] == sorted(logits, reverse=True)


def test_no_logit_is_too_large_for_a_sigmoid(both, reranker, monkeypatch):
    monkeypatch.setattr(reranker, "logit", lambda query, passage: -2000.0 if passage == "two" else 2000.0)
    assert {row["score"] for row in results(both, "/rerank", "texts")} == {0.0, 1.0}


@every_shape
def test_two_stages(both, reranker, logits, hybrid, path, field):
    """First the best by hybrid score, in the cross-encoder's order; then the rest by hybrid score."""
    by_hybrid = list(np.argsort(-hybrid))
    for top in (1, 2, 3, 4, 1000):
        rows = results(both, path, field, rerank_top=top, raw_scores=True)
        best, rest = sorted(by_hybrid[:top], key=lambda index: -logits[index]), by_hybrid[top:]
        assert order(rows) == [*best, *rest]
        assert [row["scored_by"] for row in rows] == ["cross-encoder"] * len(best) + [HYBRID] * len(rest)
        expected = [*(logits[index] for index in best), *(hybrid[index] for index in rest)]
        assert [row["score"] for row in rows] == pytest.approx(expected)
        assert len(reranker.calls[-1]["pairs"]) == len(best)


@every_shape
def test_the_stages_scores_are_within_0_and_1(both, fake, path, field):
    fake.heads = ()  # the scores are cosines, some of them below 0
    cosines = fake.score([(QUERY, text) for text in TEXTS]).by_name["dense"]
    assert min(cosines) < 0
    first, *rest = results(both, path, field, rerank_top=1)
    assert first["score"] == pytest.approx(1 / (1 + math.exp(-FakeReranker.logit(QUERY, QUERY))))
    assert [row["scored_by"] for row in rest] == ["dense"] * 3
    assert [row["score"] for row in rest] == pytest.approx(np.maximum(0, np.sort(cosines)[::-1][1:]))
    rest = results(both, path, field, rerank_top=1, raw_scores=True)[1:]
    assert [row["score"] for row in rest] == pytest.approx(np.sort(cosines)[::-1][1:])


@every_shape
def test_the_encoder_alone_has_one_stage(both, client, path, field):
    for one, model, words in (
        (client, None, "set EMBED_RERANKER_PATH"),
        (client, "fake", "set EMBED_RERANKER_PATH"),
        (both, "fake", f"name {NAME!r} there"),
    ):
        answer = post(one, path, field, rerank_top=2, model=model)
        assert answer.status_code == 400
        assert sentence(answer).startswith("rerank_top: cannot be given")
        assert words in sentence(answer)
    assert post(both, path, field, rerank_top=2, model=NAME).status_code == 200


@every_shape
def test_how_many_is_a_positive_number(both, path, field):
    for value in (0, -1, 1.5, True, "2", 1 << 31):
        answer = post(both, path, field, rerank_top=value)
        assert answer.status_code == 400, value
        assert sentence(answer).startswith("rerank_top: must be a")
    assert post(both, path, field, rerank_top=None).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_only_so_many_come_back(both, path):
    for stages in STAGES:
        whole = results(both, path, "documents", **stages)
        for name in ("top_n", "top_k"):
            assert results(both, path, "documents", **stages, **{name: 3}) == whole[:3]
        rows = results(both, path, "documents", return_documents=True, **stages)
        assert [row["document"]["text"] for row in rows] == [TEXTS[row["index"]] for row in whole]


@pytest.mark.parametrize("path", PATHS[:-1])
def test_texts_come_back_where_asked(both, path):
    for stages in STAGES:
        rows = results(both, path, "texts", return_text=True, **stages)
        assert [row["text"] for row in rows] == [TEXTS[row["index"]] for row in rows]
        assert set(rows[0]) == {"index", "text", "score"} | ({"scored_by"} if stages else set())


@every_shape
def test_nothing_to_rank_is_an_empty_order(both, path, field):
    for stages in STAGES:
        assert results(both, path, field, texts=[], **stages) == []


@every_shape
def test_pairs_are_cut_where_asked(both, reranker, fake, path, field):
    for sent, side in (
        ({}, "right"),
        ({"truncation_direction": "Left"}, "left"),
        ({"truncate": False, "truncation_direction": "left"}, None),
    ):
        for stages in STAGES:
            assert post(both, path, field, **stages, **sent).status_code == 200
            assert reranker.calls[-1]["truncate"] == side
        assert fake.calls[-1]["truncate"] == side


@every_shape
def test_a_query_that_may_not_be_cut_is_named(both, reranker, path, field):
    """Also with the hybrid score."""
    body = {"query": "word " * 20, field: ["a", "b"], "truncate": False}
    answer = both.post(path, json=body | {"model": "fake"})
    assert answer.status_code == 400
    assert sentence(answer).startswith("query: the query of text 0 has 22 tokens, the limit is 8")
    reranker.fails = TextTooLong(1, 400, 384, query=True)
    answer = both.post(path, json=body)
    assert sentence(answer).startswith("query: the query of text 1 has 400 tokens, the limit is 384")


@every_shape
def test_a_text_that_may_not_be_cut_is_named(both, path, field):
    texts = [*TEXTS, "word " * 20]
    for stages, limit in (({}, 12), ({"rerank_top": 4}, 8)):
        answer = post(both, path, field, texts, truncate=False, **stages)
        assert answer.status_code == 400
        assert sentence(answer).startswith(f"{field}: text 4 has 2")
        assert f"the limit is {limit}" in sentence(answer)
        assert post(both, path, field, texts, **stages).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_pooling_is_the_first_stages(both, fake, path):
    assert post(both, path, "documents", rerank_top=2, pooling="cls").status_code == 200
    assert {call["pooling"] for call in fake.calls} == {"cls"}


@every_shape
def test_the_first_stage_keeps_to_the_limit_of_numbers(fake, reranker, path, field):
    settings = Settings(model_name="fake", reranker_name=NAME, max_output_numbers=200)
    client = create_app(settings, fake, reranker).test_client()
    answer = post(client, path, field, rerank_top=2)
    assert answer.status_code == 400
    assert "EMBED_MAX_OUTPUT_NUMBERS" in sentence(answer)
    assert post(client, path, field).status_code == 200  # a pair has one number in the answer


@pytest.mark.parametrize("path", PATHS)
def test_usage_counts_the_tokens_of_the_pairs(both, path):
    pairs = sum(2 + len(text.split()) + 4 for text in TEXTS)
    found = post(both, path, "documents").json
    assert found["usage"]["total_tokens"] == found["meta"]["tokens"]["input_tokens"] == pairs
    texts = sum(len(text.split()) + 2 for text in TEXTS)  # the query is one of them
    found = post(both, path, "documents", rerank_top=4).json
    assert found["usage"]["total_tokens"] == pairs + texts


@every_shape
def test_the_header_says_who_goes_first(both, reranker, path, field):
    for stages in STAGES:
        body = {"query": QUERY, field: TEXTS, **stages}
        both.post(path, json=body, headers={"Priority": "u=7"})
        assert reranker.calls[-1]["priority"] == "bulk"


FAULTS = {503: Overloaded(900, 1000, 7), 504: TooLate(), 500: NotFinite([0])}


@every_shape
def test_what_goes_wrong_is_told_in_the_paths_shape(both, reranker, path, field):
    for status, fault in FAULTS.items():
        reranker.fails = fault
        for stages in STAGES:
            answer = post(both, path, field, **stages)
            assert answer.status_code == status
            assert answer.json["detail"] == sentence(answer) == str(fault)
            assert answer.headers.get("Retry-After") == ("7" if status == 503 else None)


@every_shape
def test_for_a_client_that_has_gone_nothing_is_computed(both, path, field):
    for gone, status in ((True, 499), (False, 200)):
        who = {"embed.client": SimpleNamespace(gone=lambda gone=gone: gone, late=False)}
        for stages in STAGES:
            body = {"query": QUERY, field: TEXTS, **stages}
            assert both.post(path, json=body, environ_overrides=who).status_code == status


@pytest.mark.parametrize("path", [*PATHS, "/predict", "/reranker/predict"])
def test_a_full_queue_a_large_body_and_no_key_are_refused_before_anything(fake, reranker, path):
    settings = Settings(
        model_name="fake", reranker_name=NAME, api_keys=("key",), max_body_bytes=1000, max_texts=4
    )
    client = create_app(settings, fake, reranker).test_client()
    key = {"X-API-Key": "key"}
    predicts = path.endswith("predict")
    body = {"inputs": [["a", "b"]] * 4} if predicts else {"query": "a", "documents": ["b"] * 4}
    assert client.post(path, json=body).status_code == 401
    assert client.post(path, json=body, headers=key).status_code == 200
    assert client.post(path, json=body | {"more": "a" * 1000}, headers=key).status_code == 413
    more = {name: value * 2 if isinstance(value, list) else value for name, value in body.items()}
    answer = client.post(path, json=more, headers=key)
    assert answer.status_code == (422 if predicts else 400)
    assert "the limit is 4" in sentence(answer)
    fake.turns(full=frozenset(PRIORITIES))
    answer = client.post(path, json=body, headers=key)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    assert len(reranker.calls) == 1
