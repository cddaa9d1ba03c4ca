"""A cross-encoder beyond reranking: pairs in TEI's protocol, lists of models, metrics, start and end."""

import logging
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from app import create_app
from app.api.metrics import announce
from app.config import Settings
from app.engine.errors import ModelError, Overloaded
from tests.conftest import FakeEncoder, FakeReranker

NAME = "bge-reranker-v2-m3"
PAIRS = [["one two", "one two three"], ["one", "four five"]]
LOGITS = [FakeReranker.logit(*pair) for pair in PAIRS]
PATHS = pytest.mark.parametrize("path", ["/predict", "/reranker/predict"])


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


@PATHS
def test_a_pair_has_a_flat_answer_and_a_batch_one_list_for_each(both, path):
    found = both.post(path, json={"inputs": PAIRS[0]}).json
    assert found == [{"score": pytest.approx(sigmoid(LOGITS[0])), "label": "LABEL_0"}]
    found = both.post(path, json={"inputs": PAIRS}).json
    assert [one["score"] for (one,) in found] == pytest.approx(list(map(sigmoid, LOGITS)))
    assert both.post(path, json={"inputs": PAIRS[:1]}).json == found[:1]


@PATHS
def test_predictions_may_be_logits_and_have_the_models_label(both, reranker, path):
    reranker.labels = ("relevance",)
    found = both.post(path, json={"inputs": PAIRS, "raw_scores": True}).json
    assert found == [[{"score": logit, "label": "relevance"}] for logit in LOGITS]


@PATHS
@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ("a", "must be a pair of texts or a list of pairs"),
        ([], "must be a pair of texts or a list of pairs"),
        (["a"], "pair 0 must be a list of two strings"),
        ([["a"]], "pair 0 must be a list of two strings"),
        (["a", "b", "c"], "pair 0 must be a list of two strings"),
        (["a", 1], "pair 0 must be a list of two strings"),
        ([["a", "b"], ["c"]], "pair 1 must be a list of two strings"),
        ([["a", "b"], "c"], "pair 1 must be a list of two strings"),
        (5, "must be a list of [query, passage], not a number"),
        ([["a", "b"]] * 65, "has 65 pairs, the limit is 64"),
        (None, "is required: a pair of texts, or a list of pairs"),
        ([["a", "b"], ["word " * 20, "b"]], "text 1 has 25 tokens, the limit is 12"),
    ],
    ids=str,
)
def test_what_is_no_pair_is_refused_in_teis_shape(both, reranker, path, inputs, words):
    answer = both.post(path, json={"inputs": inputs, "truncate": False})
    assert answer.status_code == 422
    assert answer.json == {"error": answer.json["error"], "error_type": "Validation"}
    assert answer.json["error"].startswith(f"inputs: {words}")


@PATHS
@pytest.mark.parametrize(
    ("sent", "side"),
    [
        ({}, "right"),
        ({"truncate": None}, "right"),
        ({"truncation_direction": "Left"}, "left"),
        ({"truncate": False}, None),
    ],
)
def test_predicted_pairs_are_cut_where_asked(both, reranker, path, sent, side):
    assert both.post(path, json={"inputs": PAIRS, **sent}).status_code == 200
    assert reranker.calls[-1]["truncate"] == side


@PATHS
def test_predictions_have_a_class_and_a_client_and_may_fail(both, reranker, path):
    body = {"inputs": PAIRS}
    assert both.post(path, json=body, headers={"Priority": "u=7"}).status_code == 200
    assert reranker.calls[-1]["priority"] == "bulk"
    who = {"embed.client": SimpleNamespace(gone=lambda: True, late=False)}
    assert both.post(path, json=body, environ_overrides=who).status_code == 499
    reranker.fails = Overloaded(900, 1000, 7)
    answer = both.post(path, json=body)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    assert answer.json == {"error": str(reranker.fails), "error_type": "Overloaded"}


@PATHS
def test_without_a_cross_encoder_nothing_is_predicted(client, path):
    answer = client.post(path, json={"inputs": PAIRS})
    assert answer.status_code == 400
    assert answer.json["error_type"] == "Validation"
    assert "set EMBED_RERANKER_PATH" in answer.json["error"]


def test_info_is_of_the_encoder_and_tells_of_the_cross_encoder(both, client, reranker):
    reranker.labels = ("relevance",)
    found = both.get("/info").json
    beside = found.pop("reranker")
    assert found["model_type"].pop("reranker") == beside["model_type"]["reranker"]
    before = client.get("/info").json
    assert before["model_type"].pop("reranker") == {"id2label": {"0": "LABEL_0"}}
    assert found == before
    assert both.get("/reranker/info").json == beside
    assert (beside["model_id"], beside["model_sha"], beside["max_input_length"]) == (NAME, "1" * 64, 12)
    labels = {"id2label": {"0": "relevance"}, "label2id": {"relevance": 0}}
    assert beside["model_type"] == {"reranker": labels}
    assert beside["outputs"] == ["cross-encoder"]


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
def test_lists_have_the_encoder_first(both, client, path):
    first, second = both.get(path).json["data"]
    assert [first] == client.get(path).json["data"]
    assert (second["id"], second["model_type"], second["max_tokens"]) == (NAME, "rerank", 12)
    assert "dimensions" not in second
    for name in (NAME, "cross", f"BAAI/{NAME}"):
        assert both.get(f"{path}/{name}").json == second | {"id": name}
    assert both.get(f"{path}/fake").json == first
    answer = both.get(f"{path}/another")
    assert answer.status_code == 404
    assert f"'fake' and {NAME!r} are served here" in answer.text


def test_infinity_and_ollama_are_told_who_embeds(both):
    assert [one["capabilities"] for one in both.get("/models").json["data"]] == [
        ["embed", "rerank"],
        ["rerank"],
    ]
    assert [one["name"] for one in both.get("/api/tags").json["models"]] == ["fake:latest"]


def test_pairs_and_tokens_are_counted(both, caplog):
    def value(name):
        return float(re.search(rf"^{name} (\S+)$", both.get("/metrics").text, re.MULTILINE)[1])

    names = ("embed_texts_total", "embed_pairs_total", "embed_tokens_total", "embed_truncated_texts_total")

    def counted(path, body):
        before = [value(name) for name in names]
        assert both.post(path, json=body).status_code == 200
        return [value(name) - old for name, old in zip(names, before, strict=True)]

    body = {"query": "one", "documents": ["one", "two three", "word " * 20]}
    with caplog.at_level(logging.INFO, "app.api.request_log"):
        assert counted("/rerank", body) == [0, 3, 6 + 7 + 12, 1]
    assert "3 texts, 25 tokens" in caplog.text
    assert counted("/rerank", body | {"model": "fake"})[:3] == [3, 0, 3 + 4 + 8]
    texts, pairs, _, _ = counted("/rerank", body | {"rerank_top": 2})
    assert (texts, pairs) == (3, 2)
    assert counted("/predict", {"inputs": PAIRS}) == [0, 2, 9 + 7, 0]


def test_the_metrics_say_what_is_served(both):
    announce(both.application)
    text = both.get("/metrics").text
    for name, pooling in (("fake", "mean"), (NAME, "cls")):
        assert f'embed_model{{engine="native",model="{name}",pooling="{pooling}",precision="fp32"' in text


class LoadableEncoder(FakeEncoder):
    """Notes when it is loaded and closed, in the same list as the reranker."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[str] = []

    def load(self) -> None:
        self.steps.append("encoder loaded")

    def close(self) -> None:
        self.steps.append("encoder closed")


class LoadableReranker(FakeReranker):
    def load(self) -> None:
        super().load()
        self.encoder.steps.append("reranker loaded")

    def close(self) -> None:
        self.encoder.steps.append("reranker closed")


@pytest.fixture
def loadable() -> LoadableReranker:
    return LoadableReranker(LoadableEncoder())


def test_both_are_loaded_and_closed(loadable):
    app = create_app(Settings(reranker_name=NAME), loadable.encoder, loadable)
    service = app.extensions["service"]
    assert service.load()
    service.close()
    expected = ["encoder loaded", "reranker loaded", "reranker closed", "encoder closed"]
    assert loadable.encoder.steps == expected


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (ModelError("the folder x has no config.json"), "flask model download reranker"),
        (RuntimeError("anything"), "the model cannot be loaded"),
    ],
)
def test_a_reranker_that_cannot_be_loaded_is_one_sentence(loadable, caplog, fault, words):
    loadable.fails = fault
    app = create_app(Settings(reranker_name=NAME), loadable.encoder, loadable)
    with caplog.at_level(logging.ERROR):
        assert not app.extensions["service"].load()
    (line,) = caplog.records
    assert words in line.getMessage()
    if isinstance(fault, ModelError):
        assert line.levelname == "CRITICAL"
        assert line.getMessage().startswith("the folder x has no config.json. Run")
        assert "EMBED_RERANKER_PATH" in line.getMessage()


def test_a_reranker_is_made_where_its_folder_is_set(settings, fake, tmp_path):
    assert create_app(settings, fake).extensions["reranker"] is None
    found = create_app(replace(settings, reranker_path=tmp_path, reranker_max_length=99), fake)
    made = found.extensions["reranker"].settings
    assert (made.path, made.max_tokens) == (tmp_path, 99)
