"""Runs the commands of docs/retrieval.md as they are written, on real text and two real models."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import Server, starting

pytestmark = [pytest.mark.bulk, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parent.parent
RERANKER = ROOT / "models" / "ms-marco-MiniLM-L-12-v2"
DOCUMENT = (ROOT / "docs" / "retrieval.md").read_text(encoding="utf-8")
OUT = ".venv/manpages/vectors"
ROW = re.compile(r"^ +1 +\d+ .* ([\w.@+-]+ \(\w\w\)):", re.MULTILINE)  # the best page of a question


def command(start: str) -> str:
    """The document's command that begins like this."""
    return re.search(rf"^{re.escape(start)}(?:.*\\\n)*.*", DOCUMENT, re.MULTILINE)[0]


def run(line: str, folder: Path, demo_folder: Path) -> str:
    """Run a command of the document as it is written, except that its vectors are in `folder`."""
    paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line.replace(OUT, str(folder))],
        cwd=ROOT,
        env={**os.environ, "PATH": paths, "EMBED_MODEL_PATH": str(demo_folder), "EMBED_PRECISION": "int8"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def vectors(tmp_path_factory, demo_folder) -> Path:
    folder = tmp_path_factory.mktemp("retrieval") / "vectors"
    run(command("flask embed"), folder, demo_folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory, demo_folder) -> Iterator[Server]:
    assert (RERANKER / "config.json").is_file(), f"it is missing: make {RERANKER.relative_to(ROOT)}"
    models = {"EMBED_MODEL_PATH": str(demo_folder), "EMBED_RERANKER_PATH": str(RERANKER)}
    log = tmp_path_factory.mktemp("retrieval") / "log"
    with starting(log, EMBED_PRECISION="int8", **models) as server:
        server.wait_until_ready(600)  # the first start prepares the weights
        yield server


def test_the_document_finds_what_it_shows(vectors, server, demo_folder):
    asked = command("python docs/retrieval.py")
    said = run(f"{asked} --server {server.url}", vectors, demo_folder)
    print(said)
    assert ROW.findall(said) == ROW.findall(DOCUMENT)
    assert len(ROW.findall(said)) == asked.count("?")
