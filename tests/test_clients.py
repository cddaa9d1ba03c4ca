"""The official clients of Ollama, OpenAI and Hugging Face, on the real server with the demo model.

They must get exactly what a direct POST /api/embed gives: the same numbers, bit for bit.
"""

import base64
import json
import shutil
import subprocess

import numpy as np
import ollama
import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from app.engine.embeddings import CROSS_ENCODER
from app.engine.reranker import Reranker, RerankerSettings
from tests.server import ROOT, float32, serving
from tests.test_readme import commands, python, shown

TEXTS = ["什么是机器学习？", "Was ist maschinelles Lernen?", "two\nlines", ""]
TOO_LONG = "word " * 600
MAX_TEXTS = 16
MODEL = "multilingual-e5-small"  # the demo model, under its own name
NOT_SERVED = f"model 'llama3' not found: {MODEL!r} is served here"


@pytest.fixture(scope="module")
def server(tmp_path_factory, demo_folder):
    log = tmp_path_factory.mktemp("log") / "server.log"
    environ = {"EMBED_MODEL_PATH": str(demo_folder), "EMBED_MAX_TEXTS": str(MAX_TEXTS)}
    with serving(log, EMBED_PRECISION="fp32", **environ) as server:
        yield server


@pytest.fixture
def ollama_client(server):
    with ollama.Client(host=server.url) as client:
        yield client


@pytest.fixture
def openai_client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("given", [TEXTS, TEXTS[0], TOO_LONG, []], ids=["list", "string", "long", "empty"])
@pytest.mark.parametrize("model", [MODEL, f"{MODEL}:latest", MODEL.upper()])
def test_ollama_embeds(server, ollama_client, model, given):
    found = ollama_client.embed(model=model, input=given)
    assert [list(row) for row in found.embeddings] == server.vectors(input=given)
    assert found.model == model
    assert (found.prompt_eval_count > 0) == bool(given)


@pytest.mark.parametrize(
    "sent",
    [
        {"truncate": True},
        {"truncate": False},
        {"dimensions": 64},
        {"options": {"num_ctx": 8192, "temperature": 0.0}},
        {"keep_alive": -1},
        {"keep_alive": "5m"},
    ],
    ids=str,
)
def test_what_ollama_sends_along(server, ollama_client, sent):
    found = ollama_client.embed(model=MODEL, input=TEXTS, **sent).embeddings
    assert [list(row) for row in found] == server.vectors(input=TEXTS, dimensions=sent.get("dimensions"))


def test_ollamas_older_embeddings(server, ollama_client):
    found = ollama_client.embeddings(MODEL, TEXTS[0], options={"num_ctx": 8192}, keep_alive="5m")
    assert list(found.embedding) == server.vectors(input=TEXTS[0])[0]


def test_ollama_lists_shows_and_pulls(ollama_client):
    (listed,) = ollama_client.list().models
    assert listed.model == f"{MODEL}:latest"
    assert listed.size > 0
    (running,) = ollama_client.ps().models
    assert (running.model, running.digest) == (listed.model, listed.digest)
    assert running.context_length == 512
    for name in (listed.model, f"ollama/{MODEL}"):
        shown = ollama_client.show(name)
        assert shown.capabilities == ["embedding"]
        assert shown.modelinfo["bert.embedding_length"] == 384
        assert shown.modified_at == listed.modified_at
        assert ollama_client.pull(name).status == "success"
        assert [step.status for step in ollama_client.pull(name, stream=True)][-1] == "success"


@pytest.mark.parametrize("method", ["embed", "embeddings", "show", "pull"])
def test_ollama_hears_that_another_model_is_served(ollama_client, method):
    given = {"embed": ["a"], "embeddings": ["a"]}.get(method, [])
    with pytest.raises(ollama.ResponseError) as caught:
        getattr(ollama_client, method)("llama3", *given)
    assert caught.value.status_code == 404
    assert caught.value.error == NOT_SERVED


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({"input": TOO_LONG, "truncate": False}, "text 0 has 602 tokens, the limit is 512"),
        ({"input": ["a"] * (MAX_TEXTS + 1)}, f"has {MAX_TEXTS + 1} texts, the limit is {MAX_TEXTS}"),
        ({"input": "a", "dimensions": 385}, "dimensions: must be at most 384"),
        ({"input": "a", "dimensions": -1}, "dimensions: must be 0 (all) or a positive number"),
    ],
)
def test_ollama_hears_what_is_wrong(ollama_client, sent, words):
    with pytest.raises(ollama.ResponseError) as caught:
        ollama_client.embed(model=MODEL, **sent)
    assert caught.value.status_code == 422
    assert words in caught.value.error


def test_ollama_hears_that_nothing_is_generated(ollama_client):
    for ask in (
        lambda: ollama_client.generate(MODEL, "hello"),
        lambda: list(ollama_client.generate(MODEL, "hello", stream=True)),
        lambda: ollama_client.chat(MODEL, [{"role": "user", "content": "hello"}]),
    ):
        with pytest.raises(ollama.ResponseError) as caught:
            ask()
        assert caught.value.status_code == 400
        assert f"{MODEL!r} does not generate text, it only embeds" in caught.value.error


@pytest.mark.parametrize("given", [TEXTS, TEXTS[0], TOO_LONG], ids=["list", "string", "long"])
@pytest.mark.parametrize("model", [MODEL, f"openai/{MODEL}"])
def test_openai_embeds(server, openai_client, model, given):
    """By default it asks for base64 and decodes it."""
    found = openai_client.embeddings.create(model=model, input=given)
    assert float32(row.embedding for row in found.data) == server.bits(input=given)
    assert [row.index for row in found.data] == list(range(len(found.data)))
    assert found.model == model
    assert found.usage.prompt_tokens == found.usage.total_tokens > 0


def test_openais_encodings(server, openai_client):
    found = openai_client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    assert [row.embedding for row in found.data] == server.vectors(input=TEXTS)
    found = openai_client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="base64")
    assert [base64.b64decode(row.embedding) for row in found.data] == server.bits(input=TEXTS)


def test_openais_dimensions(server, openai_client):
    found = openai_client.embeddings.create(model=MODEL, input=TEXTS, dimensions=64, user="somebody")
    assert float32(row.embedding for row in found.data) == server.bits(input=TEXTS, dimensions=64)


def test_openai_reaches_our_own_fields(server, openai_client):
    found = openai_client.embeddings.create(model=MODEL, input=TEXTS, extra_body={"pooling": "cls"})
    expected = server.bits(input=TEXTS, pooling="cls")
    assert float32(row.embedding for row in found.data) == expected != server.bits(input=TEXTS)


def test_openais_models(openai_client):
    assert [model.id for model in openai_client.models.list()] == [MODEL]
    for name in (MODEL, f"openai/{MODEL}"):
        assert openai_client.models.retrieve(name).id == name


def test_openai_hears_that_another_model_is_served(openai_client):
    for ask in (
        lambda: openai_client.embeddings.create(model="llama3", input="a"),
        lambda: openai_client.models.retrieve("llama3"),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert NOT_SERVED in caught.value.message
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("sent", "param", "words"),
    [
        ({"input": TOO_LONG, "extra_body": {"truncate": False}}, "input", "text 0 has 602 tokens"),
        ({"input": ["a"] * (MAX_TEXTS + 1)}, "input", f"the limit is {MAX_TEXTS}"),
        ({"input": []}, "input", "must not be empty"),
        ({"input": None}, "input", "is required"),
        ({"input": 3}, "input", "must be a string or a list of strings, not a number"),
        ({"input": ["a", None]}, "input", "text 1 must be a string, not null"),
        ({"input": [5, 3, 5]}, "input", "token ids are those of another tokenizer"),
        ({"input": [[5, 3, 5], [1, 2]]}, "input", "token ids are those of another tokenizer"),
        ({"input": "a", "dimensions": 385}, "dimensions", "at most 384"),
        ({"input": "a", "dimensions": "8"}, "dimensions", "must be a whole number"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "must be one of float, base64"),
    ],
)
def test_openai_hears_what_is_wrong(openai_client, sent, param, words):
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.embeddings.create(model=MODEL, **sent)
    assert words in caught.value.message
    assert (caught.value.type, caught.value.param) == ("invalid_request_error", param)


def test_hugging_faces_client_embeds(server):
    client = InferenceClient(model=server.url)
    for given in (TEXTS, TEXTS[0]):
        found = client.feature_extraction(given, normalize=True, truncate=True)
        assert float32(found) == server.bits(input=given)


def test_hugging_faces_client_scores_pairs(tmp_path_factory, tiny_folder, tiny_reranker, load_encoder):
    """It has no call for reranking; its call for classification sends a pair to /predict."""
    log = tmp_path_factory.mktemp("log") / "server.log"
    reranker = Reranker(RerankerSettings(tiny_reranker), load_encoder(tiny_folder, engine="torch"))
    reranker.load()
    logits = reranker.score([(TEXTS[0], text) for text in TEXTS]).by_name[CROSS_ENCODER]
    reranker.close()
    environ = {"EMBED_MODEL_PATH": str(tiny_folder), "EMBED_RERANKER_PATH": str(tiny_reranker)}
    with serving(log, EMBED_PRECISION="fp32", **environ) as server:
        client = InferenceClient(model=f"{server.url}/predict")
        found = [client.text_classification([TEXTS[0], text]) for text in TEXTS]
    assert {one.label for one in found} == {"LABEL_0"}
    assert [one.score for one in found] == pytest.approx((1 / (1 + np.exp(-logits))).tolist(), abs=1e-4)
    assert np.std(logits) > 0.05


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({"text": TOO_LONG, "truncate": False}, "text 0 has 602 tokens, the limit is 512"),
        ({"text": "a", "truncation_direction": "both"}, "must be one of right, left"),
        ({"text": ["a"] * (MAX_TEXTS + 1)}, f"the limit is {MAX_TEXTS}"),
    ],
)
def test_hugging_faces_client_hears_what_is_wrong(server, sent, words):
    with pytest.raises(HfHubHTTPError, match="422") as caught:
        InferenceClient(model=server.url).feature_extraction(**sent)
    assert words in str(caught.value)


def test_a_wrong_key_is_heard_and_the_right_one_opens(tmp_path, demo_folder):
    environ = {"EMBED_MODEL_PATH": str(demo_folder), "EMBED_PRECISION": "fp32", "EMBED_API_KEYS": "the-key"}
    with serving(tmp_path / "log", **environ) as server:

        def clients(key):
            return (
                ollama.Client(host=server.url, headers={"Authorization": f"Bearer {key}"}),
                openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0),
                InferenceClient(model=server.url, token=key),
            )

        native, compatible, hugging = clients("wrong")
        with pytest.raises(ollama.ResponseError, match="API key missing or invalid") as caught:
            native.embed(model=MODEL, input="a")
        assert caught.value.status_code == 401
        with pytest.raises(openai.AuthenticationError, match="API key missing or invalid"):
            compatible.embeddings.create(model=MODEL, input="a")
        with pytest.raises(HfHubHTTPError, match="401"):
            hugging.feature_extraction("a")
        native, compatible, hugging = clients("the-key")
        row = list(native.embed(model=MODEL, input="a").embeddings[0])
        assert compatible.embeddings.create(model=MODEL, input="a", encoding_format="float").data[
            0
        ].embedding == pytest.approx(row, abs=1e-7)
        assert hugging.feature_extraction("a").shape == (1, len(row))


def test_the_programs_of_the_docs_run_on_the_demo_model(server):
    """As they are written: a translation is nearer than what is unrelated."""
    near, far = map(float, shown(python("docs/api.md", "Embed"), server.url).split(" > "))
    assert near > far
    best, *others = shown(python("docs/search.md", "Dense search"), server.url).splitlines()
    assert "Der Zug nach Hamburg" in best
    assert len(others) == 2
    assert shown(python("docs/zh/quickstart.md", "第一个请求"), server.url) == "2 384\n"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "README.zh.md",
        "docs/api.md",
        "docs/documents.md",
        "docs/model.md",
        "docs/rerank.md",
        "docs/zh/quickstart.md",
    ],
)
def test_the_requests_of_the_docs_are_answered_by_the_demo_model(server, page):
    first, *_ = commands(page, "curl http://127.0.0.1:8000/")
    sent = first.replace("http://127.0.0.1:8000", server.url)
    done = subprocess.run(["bash", "-c", f"{sent} --silent --fail-with-body"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout)
    assert {"embeddings", "results"} & found.keys()
    if page in ("README.md", "README.zh.md", "docs/api.md"):  # they show the answer
        numbers = [row[:2] for row in found["embeddings"]]
        told = ",".join(f"[{first:.4f},{second:.4f},...]" for first, second in numbers)
        assert f'"embeddings":[{told}]' in (ROOT / page).read_text(encoding="utf-8")
