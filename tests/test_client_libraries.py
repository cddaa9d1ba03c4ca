"""Frameworks and npm's clients on the real server: they get what a direct POST /api/embed gives.

The libraries have an environment of their own, .venv/clients, with Node.js for the npm packages.
"""

import ast
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from app.engine.embeddings import CROSS_ENCODER
from app.engine.reranker import Reranker, RerankerSettings
from tests.conftest import ROOT
from tests.server import Server, float32, serving
from tests.test_readme import python

pytestmark = pytest.mark.clients

BIN = ROOT / ".venv" / "clients" / "bin"
NODE_PACKAGES = ROOT / ".venv" / "clients" / "npm"
TEXTS = ["什么是机器学习？", "Was ist maschinelles Lernen?", "two\nlines", "¿Qué tiempo hace hoy?"]
QUERY = "What is machine learning?"

QUESTION = {
    "query": "What is BM25?",
    "documents": [
        "The sun shines.",
        "BM25 ranks documents by the words of a query.",
        "机器学习让计算机从数据中学习。",
        "Die Katze schläft.",
    ],
    "top": 3,
}

# Clients that return the numbers as they read them in JSON have exactly those; the others decode base64 or
# make float32 arrays, and have the same bits.
EXACT = [
    "cohere_7",
    "cohere_v1",
    "cohere_v2",
    "haystack_ollama",
    "haystack_openai",
    "infinity",
    "langchain_cohere",
    "langchain_infinity",
    "langchain_nvidia",
    "langchain_ollama",
    "langchain_xinference",
    "llama_index_cohere",
    "llama_index_jina",
    "llama_index_ollama",
    "llama_index_tei",
    "mem0_ollama",
    "mem0_openai",
]
BITS = [
    "chromadb_cohere",
    "chromadb_hugging_face",
    "chromadb_jina",
    "chromadb_ollama",
    "chromadb_openai",
    "haystack_hugging_face",
    "hugging_face_hub",
    "langchain_openai",
    "lightrag_jina",
    "llama_index_nvidia",
    "llama_index_openai",
    "voyage",
]
# These turn a text into one line before they send it.
ONE_LINE = ["haystack_ollama", "llama_index_openai", "mem0_openai"]
RERANKERS = [
    "cohere_7_rerank",
    "cohere_v1_rerank",
    "cohere_v2_rerank",
    "infinity_rerank",
    "langchain_cohere_rerank",
    "langchain_infinity_rerank",
    "lightrag_rerank",
    "llama_index_cohere_rerank",
    "llama_index_jina_rerank",
    "llama_index_tei_rerank",
    "mem0_rerank",
    "voyage_rerank",
]

NPM_EXACT = [
    "ai_cohere",
    "ai_openai",
    "ai_openai_compatible",
    "cohere_v1",
    "cohere_v2",
    "langchain_cohere",
    "langchain_ollama",
    "ollama",
]
NPM_BITS = ["langchain_openai", "openai"]
NPM_RERANKERS = ["ai_cohere_rerank", "cohere_v2_rerank", "langchain_cohere_rerank"]

# For each provider: the address that litellm gets, and its other arguments.
LITELLM_EMBED = {
    "cohere": {"path": "/v2/embed"},
    "hosted_vllm": {"path": "/v1"},
    "huggingface": {"path": "/embed", "input_type": "feature-extraction"},
    "infinity": {"path": ""},
    "jina_ai": {"path": "/v1"},
    "ollama": {"path": ""},
    "openai": {"path": "/v1"},
    "voyage": {"path": "/v1"},
}
LITELLM_RERANK = {
    "cohere": {"path": ""},
    "hosted_vllm": {"path": "/v1"},
    "huggingface": {"path": ""},
    # It wants documents as strings, where the other providers want objects.
    "infinity": {"path": "", "return_documents": False},
    "jina_ai": {"path": ""},
    "voyage": {"path": "/v1"},
}

# For each field of an error that clients may show, a client that shows only that field.
REFUSED = [
    "chromadb_jina",
    "cohere_v2",
    "infinity_rerank",
    "langchain_nvidia",
    "llama_index_jina",
    "llama_index_jina_rerank",
    "voyage",
]
NPM_REFUSED = ["ai_cohere", "ai_cohere_rerank", "ai_openai_compatible", "cohere_v2", "langchain_ollama"]


@pytest.fixture(scope="module")
def server(tmp_path_factory, demo_folder):
    log = tmp_path_factory.mktemp("log") / "server.log"
    environ = {"EMBED_MODEL_PATH": str(demo_folder), "EMBED_PRECISION": "fp32"}
    # LlamaIndex's CohereEmbedding accepts only the names of Cohere's models.
    with serving(log, EMBED_MODEL_ALIASES="embed-multilingual-v3.0", **environ) as server:
        yield server


@pytest.fixture(scope="module")
def ranking(server):
    """What a direct POST /v1/rerank gives."""
    return direct_ranking(server)


@pytest.fixture(scope="module")
def ranking_server(tmp_path_factory, tiny_folder, tiny_reranker):
    """A server whose cross-encoder has the name that clients send."""
    log = tmp_path_factory.mktemp("log") / "server.log"
    environ = {"EMBED_MODEL_PATH": str(tiny_folder), "EMBED_PRECISION": "fp32"}
    environ |= {"EMBED_RERANKER_PATH": str(tiny_reranker), "EMBED_RERANKER_NAME": "multilingual-e5-small"}
    with serving(log, **environ) as server:
        yield server


@pytest.fixture(scope="module")
def order(ranking_server, tiny_reranker, tiny_folder, load_encoder):
    """The cross-encoder's order of the documents, which differs from that of the hybrid score."""
    reranker = Reranker(RerankerSettings(tiny_reranker), load_encoder(tiny_folder, engine="torch"))
    reranker.load()
    pairs = [(QUESTION["query"], document) for document in QUESTION["documents"]]
    best = np.argsort(-reranker.score(pairs).by_name[CROSS_ENCODER])[: QUESTION["top"]]
    reranker.close()
    found = direct_ranking(ranking_server)
    assert [index for index, _ in found] == best.tolist()
    hybrid = direct_ranking(ranking_server, model="tiny")
    assert [index for index, _ in hybrid] != best.tolist()
    return found


def direct_ranking(server: Server, **options) -> list[list]:
    asked = {
        "query": QUESTION["query"],
        "documents": QUESTION["documents"],
        "top_n": QUESTION["top"],
    } | options
    status, found = server.post("/v1/rerank", asked)
    assert status == 200, found
    return [[row["index"], row["relevance_score"]] for row in found["results"]]


@pytest.fixture(scope="module")
def refusal(server):
    """The error for a model that is not served."""
    status, found = server.post("/api/embed", {"model": "nobody", "input": "a"})
    assert status == 404
    return found["error"]


@pytest.fixture(scope="module")
def litellm(server):
    """litellm's results for every provider, by function and provider; litellm is imported once."""
    texts = {"texts": TEXTS, "query": QUERY}
    calls = [["litellm_embed", {"provider": p, **texts, **o}] for p, o in LITELLM_EMBED.items()]
    calls += [["litellm_rerank", {"provider": p, **QUESTION, **o}] for p, o in LITELLM_RERANK.items()]
    calls.append(["refused", {"client": "litellm_embed", "provider": "openai", "path": "/v1", **texts}])
    calls.append(["refused", {"client": "litellm_rerank", "provider": "jina_ai", "path": "", **QUESTION}])
    found = in_python(server, "several", calls=calls)
    return {(function, given["provider"]): row for (function, given), row in zip(calls, found, strict=True)}


def run(*command: str | Path, cwd: Path = ROOT, **given) -> str:
    done = subprocess.run(
        command, cwd=cwd, input=json.dumps(given), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_python(server: Server, function: str, **given):
    return json.loads(
        run(BIN / "python", ROOT / "tests" / "client_libraries.py", function, server.url, **given)
    )


def in_node(server: Server, library: str, **given):
    script = ROOT / "tests" / "client_libraries.mjs"
    return json.loads(run(BIN / "node", script, library, server.url, cwd=NODE_PACKAGES, **given))


def asked_of(library: str) -> dict:
    return QUESTION if library.endswith("_rerank") else {"texts": TEXTS, "query": QUERY}


@pytest.mark.parametrize("library", EXACT)
def test_the_numbers_are_the_same(server, library):
    found, query = in_python(server, library, texts=TEXTS, query=QUERY)
    assert found == server.vectors(input=sent(library))
    assert [query] == server.vectors(input=QUERY)


@pytest.mark.parametrize("library", BITS)
def test_the_bits_are_the_same(server, library):
    found, query = in_python(server, library, texts=TEXTS, query=QUERY)
    assert float32(found) == server.bits(input=sent(library))
    assert float32([query]) == server.bits(input=QUERY)


def sent(library: str) -> list[str]:
    return [text.replace("\n", " ") for text in TEXTS] if library in ONE_LINE else TEXTS


@pytest.mark.parametrize("library", RERANKERS)
def test_the_ranking_is_the_same(server, ranking, library):
    assert in_python(server, library, **QUESTION) == ranking


@pytest.mark.parametrize("library", RERANKERS)
def test_a_cross_encoders_ranking_is_the_same(ranking_server, order, library):
    assert in_python(ranking_server, library, **QUESTION) == order


@pytest.mark.parametrize("library", NPM_EXACT)
def test_the_numbers_are_the_same_in_node(server, library):
    found, query = in_node(server, library, texts=TEXTS, query=QUERY)
    assert found == server.vectors(input=TEXTS)
    assert [query] == server.vectors(input=QUERY)


@pytest.mark.parametrize("library", NPM_BITS)
def test_the_bits_are_the_same_in_node(server, library):
    found, query = in_node(server, library, texts=TEXTS, query=QUERY)
    assert float32(found) == server.bits(input=TEXTS)
    assert float32([query]) == server.bits(input=QUERY)


@pytest.mark.parametrize("library", NPM_RERANKERS)
def test_the_ranking_is_the_same_in_node(server, ranking, library):
    assert in_node(server, library, **QUESTION) == ranking


@pytest.mark.parametrize("library", NPM_RERANKERS)
def test_a_cross_encoders_ranking_is_the_same_in_node(ranking_server, order, library):
    assert in_node(ranking_server, library, **QUESTION) == order


@pytest.mark.parametrize("provider", LITELLM_EMBED)
def test_litellms_numbers_are_the_same(server, litellm, provider):
    assert litellm["litellm_embed", provider] == [
        server.vectors(input=TEXTS),
        *server.vectors(input=QUERY),
    ]


@pytest.mark.parametrize("provider", LITELLM_RERANK)
def test_litellms_ranking_is_the_same(litellm, ranking, provider):
    assert litellm["litellm_rerank", provider] == ranking


def test_coheres_types_are_the_same(server):
    types = ["int8", "binary", "ubinary", "base64"]
    found = in_python(server, "cohere_types", texts=TEXTS, types=types)
    assert found == {name: server.vectors(input=TEXTS, encoding_format=name) for name in types}


def test_infinitys_client_reads_the_list_of_models(server):
    assert "multilingual-e5-small" in in_python(server, "infinity_models")


@pytest.mark.parametrize("library", REFUSED)
def test_the_refusal_is_heard(server, refusal, library):
    assert refusal in in_python(server, "refused", client=library, **asked_of(library))


@pytest.mark.parametrize("library", NPM_REFUSED)
def test_the_refusal_is_heard_in_node(server, refusal, library):
    assert refusal in in_node(server, library, model="nobody", **asked_of(library))


@pytest.mark.parametrize("provider", ["openai", "jina_ai"])
def test_the_refusal_is_heard_through_litellm(litellm, refusal, provider):
    assert refusal in litellm["refused", provider]


def test_langchain_openai_hears_what_to_set(server):
    message = in_python(server, "langchain_openai_refused", texts=TEXTS)
    assert "send text: with langchain-openai set check_embedding_ctx_length=False" in message


def test_langchain_finds_the_answer_in_another_language(server):
    """Each question is in a different language than its answer."""
    texts = json.loads((ROOT / "tests" / "passages.json").read_text(encoding="utf-8"))
    queries, answers = zip(*texts["answered"], strict=True)
    passages = [*answers, *texts["others"]]
    assert len(passages) == 200
    found = in_python(server, "langchain_search", passages=passages, queries=queries)
    missed = [
        query for query, answer, best in zip(queries, answers, found, strict=True) if answer not in best
    ]
    assert not missed


def test_the_hybrid_search_of_the_docs_runs(tmp_path, tiny_folder):
    """Its vectors are random, so the order of what it prints means nothing."""
    example = python("docs/search.md", "Hybrid search")
    (url,) = re.findall(r"http://[\w.:]+", example)
    with serving(tmp_path / "log", EMBED_MODEL_PATH=str(tiny_folder), EMBED_PRECISION="fp32") as server:
        printed = run(BIN / "python", "-W", "error", "-c", example.replace(url, server.url)).splitlines()
    assert len(printed) == 2
    for line in printed:
        _, name, passage = line.split(" ", 2)
        assert ast.literal_eval(passage) in (ROOT / name).read_text(encoding="utf-8")


def test_documents_are_found_and_cited(server):
    """docs/documents.md, on the demo model."""
    example = python("docs/documents.md", "Index and cite")
    (url,) = re.findall(r"http://[\w.:]+", example)
    printed = run(BIN / "python", "-W", "error", "-c", example.replace(url, server.url)).splitlines()
    assert len(printed) == 3
    assert printed[0].startswith("docs/rerank.md, line ")
    for line in printed:
        name, number, passage = re.fullmatch(r"([\w/.]+), line (\d+): (.*)", line).groups()
        rest = (ROOT / name).read_text(encoding="utf-8").split("\n", int(number) - 1)[-1]
        assert passage in " ".join(rest.split())[:1000]
