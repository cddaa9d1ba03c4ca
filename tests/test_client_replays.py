"""Clients that cannot be installed here: the bytes their sources send, and what they read of the answers.

Each replay has the name of a project, and the version, day or commit of the source it is made from.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pytest

TEXTS = ["one two", "机器 & <three>"]
QUERY = "two"
JSON = {"Content-Type": "application/json"}
KEY = {"Authorization": "Bearer a-key"}


def python(body) -> bytes:
    """JSON as Python's requests and aiohttp write it."""
    return json.dumps(body).encode()


def compact(body) -> bytes:
    """JSON as JavaScript and Python's httpx write it."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def go(body) -> bytes:
    escaped = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
    return compact(body).decode().translate(str.maketrans(escaped)).encode()


@dataclass
class Replay:
    path: str
    body: bytes
    read: Callable
    headers: dict
    before: Iterable[str] = ()  # paths that it gets first; it goes on if they succeed

    def __call__(self, client):
        for path in self.before:
            assert client.get(path, headers=self.headers).status_code < 300
        answer = client.post(self.path, data=self.body, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return self.read(answer.json)


def replay(of: str, path: str, body: bytes, read: Callable, headers: dict | None = None, before=()):
    headers = JSON if headers is None else headers
    return pytest.param(Replay(path, body, read, headers, before), id=f"replay of {of}")


def ollama(answer):
    return answer["embeddings"]


def openai(answer):
    assert answer["usage"]["prompt_tokens"] > 0
    return [row["embedding"] for row in sorted(answer["data"], key=lambda row: row["index"])]


@pytest.mark.parametrize(
    "ask",
    [
        replay(
            "AnythingLLM 1.16.0, Ollama",
            "/api/embed",
            compact({"model": "fake", "input": TEXTS, "options": {"num_ctx": 8192}}),
            ollama,
            JSON | {"Accept": "application/json", "User-Agent": "ollama-js/0.6.3"},
            before=["/"],
        ),
        replay(
            "AnythingLLM 1.16.0, LocalAI",
            "/v1/embeddings",
            compact({"model": "fake", "input": TEXTS, "dimensions": None, "encoding_format": "float"}),
            openai,
            JSON | {"Accept": "application/json", "Authorization": "Bearer null"},
        ),
        replay(
            "Cherry Studio 791293c, Ollama",
            "/api/embed",
            compact({"model": "fake", "input": TEXTS, "truncate": False}),
            ollama,
        ),
        replay(
            "Dify ollama 1.0.0",
            "/api/embed",
            python({"input": TEXTS, "model": "fake", "truncate": True, "options": {"use_mmap": True}}),
            ollama,
            JSON | KEY,
        ),
        replay(
            "Dify openai_api_compatible 0.0.63",
            "/v1/embeddings",
            python({"model": "fake", "input": TEXTS}),
            openai,
            JSON | KEY,
        ),
        replay(
            "Dify huggingface_tei 0.1.10",
            "/v1/embeddings",
            compact({"input": TEXTS}),
            openai,
            before=["/info"],
        ),
        replay(
            "Dify cohere 0.0.17",
            "/v1/embed",
            compact({"texts": TEXTS, "model": "fake", "input_type": "search_document"}),
            lambda answer: answer["meta"]["billed_units"]["input_tokens"] and answer["embeddings"],
            JSON | KEY,
        ),
        replay(
            "Dify jina 0.0.23",
            "/v1/embeddings",
            python({"model": "fake", "input": [{"text": text} for text in TEXTS]}),
            lambda answer: answer["usage"]["total_tokens"] and openai(answer),
            JSON | KEY,
        ),
        replay(
            "MaxKB 2.0.0, OpenAI",
            "/v1/embeddings",
            compact({"input": TEXTS, "model": "fake", "encoding_format": "float"}),
            openai,
            JSON | KEY,
        ),
        replay(
            "Open WebUI 0.12.4, Ollama",
            "/api/embed",
            python({"input": TEXTS, "model": "fake", "truncate": True}),
            ollama,
            JSON | {"Authorization": "Bearer ", "X-OpenWebUI-User-Name": "%E6%9D%8E", "Accept": "*/*"},
        ),
        replay(
            "Open WebUI 0.12.4, OpenAI",
            "/v1/embeddings",
            python({"input": TEXTS, "model": "fake"}),
            openai,
            JSON | {"Authorization": "Bearer ", "Accept": "*/*"},
        ),
        replay(
            "RAGFlow 0.27.0, Ollama",
            "/api/embed",
            compact(
                {
                    "model": "fake",
                    "input": TEXTS,
                    "truncate": True,
                    "options": {"use_mmap": True},
                    "keep_alive": -1,
                }
            ),
            ollama,
        ),
        replay(
            "RAGFlow 0.27.0, OpenAI-API-Compatible",
            "/v1/embeddings",
            compact({"input": TEXTS, "model": "fake", "encoding_format": "float", "drop_params": True}),
            openai,
            JSON | KEY,
        ),
        replay(
            "RAGFlow 0.27.0, NVIDIA",
            "/v1/embeddings",
            python(
                {
                    "input": TEXTS,
                    "input_type": "passage",
                    "model": "fake",
                    "encoding_format": "float",
                    "truncate": "END",
                }
            ),
            openai,
            JSON | KEY,
        ),
        replay("RAGFlow 0.27.0, HuggingFace", "/embed", python({"inputs": TEXTS}), lambda answer: answer),
    ],
)
def test_the_numbers_are_the_same(client, ask):
    assert ask(client) == client.post("/api/embed", json={"input": TEXTS}).json["embeddings"]


@pytest.mark.parametrize(
    "ask",
    [
        replay(
            "AnythingLLM 1.16.0, generic OpenAI",
            "/v1/embeddings",
            compact({"model": "fake", "input": TEXTS, "encoding_format": "base64"}),
            openai,
            JSON | {"Accept": "application/json", "Authorization": "Bearer null"},
        ),
        replay(
            "RAGFlow 0.27.0, LocalAI",
            "/v1/embeddings",
            compact({"input": TEXTS, "model": "fake", "encoding_format": "base64"}),
            openai,
            JSON | {"Authorization": "Bearer empty"},
        ),
    ],
)
def test_the_bits_are_the_same(client, ask):
    body = {"input": TEXTS, "encoding_format": "base64"}
    assert ask(client) == client.post("/api/embed", json=body).json["embeddings"]


def weaviate(task: str) -> bytes:
    config = {"pooling_strategy": "masked_mean", "task_type": task}
    return go({"text": TEXTS[1], "dims": 0, "vector": None, "error": "", "config": config})


GO = {"User-Agent": "Go-http-client/1.1"}  # and no content type
# Options that langchain-community's OllamaEmbeddings sends as null.
OPTIONS = [
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "num_ctx",
    "num_gpu",
    "num_thread",
    "repeat_last_n",
    "repeat_penalty",
    "temperature",
    "stop",
    "tfs_z",
    "top_k",
    "top_p",
]


@pytest.mark.parametrize(
    "ask",
    [
        replay(
            "Cherry Studio 791293c, Ollama, one text",
            "/api/embed",
            compact({"model": "fake", "input": TEXTS[1], "truncate": False}),
            lambda answer: answer["embeddings"][0],
        ),
        replay(
            "MaxKB 2.0.0, Ollama",
            "/api/embeddings",
            python({"model": "fake", "prompt": TEXTS[1], "options": dict.fromkeys(OPTIONS)}),
            lambda answer: answer["embedding"],
        ),
        replay(
            "RAGFlow 0.27.0, HuggingFace, a query",
            "/embed",
            python({"inputs": TEXTS[1]}),
            lambda answer: answer[0],
        ),
        replay(
            "Weaviate 2026-08-20, an object",
            "/vectors",
            weaviate("passage"),
            lambda answer: answer["vector"],
            GO,
            before=["/.well-known/ready", "/meta"],
        ),
        replay(
            "Weaviate 2026-08-20, a query", "/vectors", weaviate("query"), lambda answer: answer["vector"], GO
        ),
    ],
)
def test_one_text_has_the_same_numbers(client, ask):
    (direct,) = client.post("/api/embed", json={"input": TEXTS[1]}).json["embeddings"]
    np.testing.assert_allclose(ask(client), direct, rtol=1e-6)  # /api/embeddings has more digits


def results(answer):
    return [(row["index"], row["relevance_score"]) for row in answer["results"]]


def tei(answer):
    return [(row["index"], row["score"]) for row in answer]


def with_documents(answer):
    assert all(row["document"]["text"] == TEXTS[row["index"]] for row in answer["results"])
    return results(answer)


ASKED = {"model": "fake", "query": QUERY, "documents": TEXTS}


@pytest.mark.parametrize(
    "ask",
    [
        replay("Cherry Studio 3cfbd1d", "/v1/rerank", compact(ASKED | {"top_n": 6}), results, JSON | KEY),
        replay(
            "Cherry Studio 3cfbd1d, a TEI provider",
            "/v1/rerank",
            compact({"query": QUERY, "texts": TEXTS, "return_text": True}),
            tei,
            JSON | KEY,
        ),
        replay(
            "Dify cohere 0.0.17",
            "/v1/rerank",
            compact(ASKED | {"top_n": 2, "return_documents": True}),
            with_documents,
            JSON | KEY,
        ),
        replay(
            "Dify huggingface_tei 0.1.10",
            "/reranker/rerank",
            compact({"query": QUERY, "texts": TEXTS, "return_text": True}),
            lambda answer: [row["text"] for row in answer] and tei(answer),
            before=["/reranker/info"],
        ),
        replay(
            "Dify jina 0.0.23",
            "/v1/rerank",
            compact(ASKED | {"top_n": None, "return_documents": False}),
            results,
            JSON | KEY,
        ),
        replay("Dify localai 0.0.8", "/rerank", python(ASKED | {"top_n": None}), results, JSON | KEY),
        replay("Dify ollama 1.0.0", "/api/rerank", python(ASKED | {"top_n": 2}), results),
        replay(
            "Dify openai_api_compatible 0.0.63",
            "/v1/rerank",
            python(ASKED | {"top_n": 2}),
            results,
            JSON | KEY,
        ),
        replay(
            "MaxKB 2.0.0, SiliconCloud",
            "/v1/rerank",
            python(ASKED | {"top_n": 3, "return_documents": True}),
            with_documents,
            JSON | KEY,
        ),
        replay("Open WebUI 0.12.4", "/v1/rerank", python(ASKED | {"top_n": 2}), results, JSON | KEY),
        replay(
            "RAGFlow 0.27.0, Cohere and VLLM",
            "/v1/rerank",
            compact(ASKED | {"top_n": 2, "return_documents": False}),
            results,
            JSON | KEY,
        ),
        replay("RAGFlow 0.27.0, Jina", "/v1/rerank", python(ASKED | {"top_n": 2}), results, JSON | KEY),
        replay("RAGFlow 0.27.0, LocalAI", "/rerank", python(ASKED | {"top_n": 2}), results, JSON | KEY),
        replay(
            "RAGFlow 0.27.0, HuggingFace",
            "/rerank",
            python({"query": QUERY, "texts": TEXTS, "raw_scores": False, "truncate": True}),
            tei,
        ),
        replay(
            "RAGFlow 0.27.0, Xinference",
            "/v1/rerank",
            python(ASKED | {"return_documents": "true", "return_len": "true"}),
            with_documents,
        ),
        replay(
            "Weaviate 2026-08-20",
            "/rerank",
            go({"query": QUERY, "documents": TEXTS, "property": ""}),
            lambda answer: [(TEXTS.index(row["document"]), row["score"]) for row in answer["scores"]],
            GO,
        ),
    ],
)
def test_the_ranking_is_the_same(client, ask):
    assert ask(client) == results(client.post("/v1/rerank", json=ASKED).json)


@pytest.mark.parametrize(
    ("path", "body", "headers", "read"),
    [
        pytest.param(path, body, headers, read, id=f"replay of {of}")
        for of, path, body, headers, read in [
            ("Open WebUI 0.12.4", "/api/embed", python({"input": [True], "model": "fake"}), JSON, "error"),
            (
                "Dify jina 0.0.23",
                "/v1/embeddings",
                python({"input": [True], "model": "fake"}),
                JSON,
                "detail",
            ),
            ("Weaviate 2026-08-20", "/vectors", go({"text": 1}), GO, "error"),
        ]
    ],
)
def test_the_refusal_is_where_it_is_read(client, path, body, headers, read):
    answer = client.post(path, data=body, headers=headers)
    assert answer.status_code >= 400
    assert "must be a string" in answer.json[read]


def test_dify_counts_tokens(client):
    """Replay of Dify huggingface_tei 0.1.10."""
    found = client.post("/tokenize", data=compact({"inputs": TEXTS}), headers=JSON).json
    assert [len(tokens) for tokens in found] == [4, 5]
