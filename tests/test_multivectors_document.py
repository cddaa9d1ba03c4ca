"""The programs of docs/multivectors.md run as they are written, on a real server."""

import json
import re
import subprocess

import numpy as np
import pytest

from app.engine.encodings import as_ubinary
from tests.conftest import ROOT
from tests.server import serving

pytestmark = pytest.mark.clients

PYTHON = ROOT / ".venv" / "clients" / "bin" / "python"
PASSAGES = ["BM25 ranks documents by the words of a query.", "机器学习让计算机从数据中学习。"]
QUERY = "Was ist maschinelles Lernen?"


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_folder):
    log = tmp_path_factory.mktemp("log") / "server.log"
    with serving(log, EMBED_MODEL_PATH=str(tiny_folder), EMBED_PRECISION="fp32") as server:
        yield server


def printed(server, title: str) -> str:
    """What the program under a title of the document prints."""
    document = (ROOT / "docs" / "multivectors.md").read_text(encoding="utf-8")
    (code,) = re.findall(rf"\n## {title}\n.*?```python\n(.*?)```", document, re.DOTALL)
    (url,) = set(re.findall(r"http://[\w.:]+", code))
    done = subprocess.run(
        [PYTHON, "-W", "error", "-c", code.replace(url, server.url)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def max_sim(query: np.ndarray, passage: np.ndarray) -> float:
    return float((query @ passage.T).max(axis=1).sum())


def test_qdrant_gives_max_sim_of_the_pooled_rows(server, load_encoder, tiny_folder):
    encoder = load_encoder(tiny_folder, engine="torch")
    passages = encoder.encode(PASSAGES, outputs=("colbert",), colbert_pool=4).multi_vector
    (query,) = encoder.encode([QUERY], outputs=("colbert",)).multi_vector
    expected = {text: max_sim(query, rows) for text, rows in zip(PASSAGES, passages, strict=True)}
    found = dict(line.split(" ", 1)[::-1] for line in printed(server, "Qdrant").splitlines())
    assert list(found) == sorted(expected, key=expected.get, reverse=True)
    for text, score in found.items():
        assert float(score) == pytest.approx(expected[text], abs=1e-3)


def test_vespa_gets_the_bits_in_its_own_form(server, load_encoder, tiny_folder):
    """A mixed tensor's short form: one block per label, with its int8 cells in hexadecimal."""
    encoder = load_encoder(tiny_folder, engine="torch")
    (rows,) = encoder.encode(["a passage"], outputs=("colbert",), colbert_pool=4).multi_vector
    blocks = json.loads(printed(server, "Vespa"))["fields"]["colbert"]["blocks"]
    assert blocks == {str(number): bytes(row).hex() for number, row in enumerate(as_ubinary(rows))}


def test_bits_of_0_and_1_give_the_order_of_signs():
    """What the document says about Vespa's unpack_bits."""
    chance = np.random.default_rng(0)
    query = chance.normal(size=(5, 32))
    passages = [chance.normal(size=(rows, 32)) > 0 for rows in chance.integers(1, 30, size=50)]
    by_bits = [max_sim(query, bits.astype(float)) for bits in passages]
    by_signs = [max_sim(query, bits * 2.0 - 1) for bits in passages]
    np.testing.assert_array_equal(np.argsort(by_bits), np.argsort(by_signs))
    np.testing.assert_allclose(by_signs, 2 * np.array(by_bits) - query.sum())
