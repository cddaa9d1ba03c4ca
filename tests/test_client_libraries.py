"""Frameworks and npm's clients on the real server: they get what a direct POST /api/embed gives.

They have an environment of their own, .venv/clients, with the Node.js that npm's need.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.server import Server, float32, serving

pytestmark = pytest.mark.clients

BIN = ROOT / ".venv" / "clients" / "bin"
NODE_PACKAGES = ROOT / ".venv" / "clients" / "npm"
TEXTS = ["什么是机器学习？", "Was ist maschinelles Lernen?", "two\nlines", "¿Qué tiempo hace hoy?"]
QUERY = "What is machine learning?"

# Those that hand on the numbers they read in JSON have exactly them; the rest decode base64 or make
# arrays of float32, and have the bits.
EXACT = ["langchain_ollama", "llama_index_ollama", "haystack_ollama", "haystack_openai"]
BITS = ["langchain_openai", "llama_index_openai", "haystack_hugging_face", "hugging_face_hub"]


@pytest.fixture(scope="module")
def server(tmp_path_factory, demo_folder):
    log = tmp_path_factory.mktemp("log") / "server.log"
    with serving(log, EMBED_MODEL_PATH=str(demo_folder), EMBED_PRECISION="fp32") as server:
        yield server


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


def in_node(server: Server, library: str):
    script = ROOT / "tests" / "client_libraries.mjs"
    given = {"texts": TEXTS, "query": QUERY}
    return json.loads(run(BIN / "node", script, library, server.url, cwd=NODE_PACKAGES, **given))


@pytest.mark.parametrize("library", EXACT)
def test_the_numbers_are_the_same(server, library):
    found, query = in_python(server, library, texts=TEXTS, query=QUERY)
    assert found == server.vectors(input=TEXTS)
    assert [query] == server.vectors(input=QUERY)


@pytest.mark.parametrize("library", BITS)
def test_the_bits_are_the_same(server, library):
    found, query = in_python(server, library, texts=TEXTS, query=QUERY)
    # It makes one line of a text before it sends it.
    sent = [text.replace("\n", " ") for text in TEXTS] if library == "llama_index_openai" else TEXTS
    assert float32(found) == server.bits(input=sent)
    assert float32([query]) == server.bits(input=QUERY)


def test_npms_ollama(server):
    found, query = in_node(server, "ollama")
    assert found == server.vectors(input=TEXTS)
    assert [query] == server.vectors(input=QUERY)


def test_npms_openai(server):
    found, query = in_node(server, "openai")
    assert float32(found) == server.bits(input=TEXTS)
    assert float32([query]) == server.bits(input=QUERY)


def test_langchain_openai_hears_what_to_set(server):
    message = in_python(server, "langchain_openai_refused", texts=TEXTS)
    assert "send text: with langchain-openai set check_embedding_ctx_length=False" in message


def test_langchain_finds_the_answer_in_another_language(server):
    """Each question is asked in another language than its answer is written in."""
    texts = json.loads((ROOT / "tests" / "passages.json").read_text(encoding="utf-8"))
    queries, answers = zip(*texts["answered"], strict=True)
    passages = [*answers, *texts["others"]]
    assert len(passages) == 200
    found = in_python(server, "langchain_search", passages=passages, queries=queries)
    missed = [
        query for query, answer, best in zip(queries, answers, found, strict=True) if answer not in best
    ]
    assert not missed


def test_the_readmes_hybrid_search_runs(tmp_path, tiny_folder):
    """Its vectors are random and the order of what it prints means nothing."""
    section = (
        (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Hybrid search\n")[1].split("\n## ")[0]
    )
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (url,) = re.findall(r"http://[\w.:]+", code)
    with serving(tmp_path / "log", EMBED_MODEL_PATH=str(tiny_folder), EMBED_PRECISION="fp32") as server:
        printed = run(BIN / "python", "-W", "error", "-c", code.replace(url, server.url)).splitlines()
    assert len(printed) == 2
    assert all(line.split(" ", 1)[1] in code for line in printed)
