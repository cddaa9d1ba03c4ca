"""Compares every output of BGE-M3 with FlagEmbedding's, on the tiny model.

FlagEmbedding has an environment of its own, .venv/parity, as its pinned versions differ from ours.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from app.engine.embeddings import CROSS_ENCODER, POOL_FACTORS
from app.engine.encoder import Encoder
from app.engine.reranker import Reranker, RerankerSettings
from app.engine.texts import HELD_OUT
from app.engine.token_pooling import pool
from benchmarks.checkpoint import RERANKER, is_complete, make_reranker
from tests.conftest import DEMO, ROOT

pytestmark = pytest.mark.parity

PYTHON = ROOT / ".venv" / "parity" / "bin" / "python"

LIMIT = 8192
PHRASE = ["one", "two", "three", "four", "five", "six", "seven", "eight"]  # each a token
FULL = " ".join((PHRASE * LIMIT)[: LIMIT - 2])  # <s> and </s> are added
TEXTS = {
    "one word": "word",
    "mixed scripts": "Hello мир, 你好 wereld! مرحبا بالعالم, नमस्ते",
    "emoji": "🚀 emoji 👩‍👩‍👧‍👦 and ﬁgures ①②③",
    "empty": "",
    "repeated words": "a rose is a rose is a rose " * 9,
    "written special tokens": "<unk> </s> <mask> written out",
    "spaces": "  \t two  spaces\n\nand a line ",
    "exactly 8192 tokens": FULL,
    "one token beyond": FULL + " word",
}
NAMES, ALL = list(TEXTS), ("dense", "sparse", "colbert")
QUERIES = ["What is BGE M3?", "a rose", "什么是机器学习？", "word"]
PASSAGES = [
    "BGE M3 is an embedding model supporting dense retrieval, lexical matching and multi-vector interaction.",
    "roses are red, a rose is a rose is a rose",
    "Машинное обучение и 机器学习",
    "",
]
# transformers reads tokenizer.json with the class that is named here.
TOKENIZER = {
    "tokenizer_class": "XLMRobertaTokenizer",
    "model_max_length": LIMIT,
    "cls_token": "<s>",
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
PAIRS = [(query, passage) for query in QUERIES for passage in PASSAGES]
WEIGHTS = (0.4, 0.2, 0.4)


@pytest.fixture(scope="module")
def folder(tiny_folder: Path, tmp_path_factory) -> Path:
    """The tiny checkpoint with heads more like BGE-M3's, and with the other files FlagEmbedding reads."""
    folder = tmp_path_factory.mktemp("models") / "parity"
    folder.mkdir()
    for file in tiny_folder.iterdir():
        if file.name not in ("native", "openvino"):  # exports with other heads
            (folder / file.name).symlink_to(file)
    torch.manual_seed(3)  # with this, some lexical weights are below 0, most above
    # Lexical weights below 1 and biases other than 0, as in BGE-M3. With weights 20 times as large, scores
    # would be in the thousands, where float32 itself is no finer than 1e-4.
    heads = {
        "sparse": {"weight": torch.randn(1, 64) / 40, "bias": torch.full((1,), -0.05)},
        "colbert": {"weight": torch.randn(64, 64), "bias": torch.randn(64)},
    }
    for name, head in heads.items():
        (folder / f"{name}_linear.pt").unlink()
        torch.save(head, folder / f"{name}_linear.pt")
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER))
    return folder


@pytest.fixture(scope="module")
def theirs(folder: Path, tmp_path_factory) -> dict[str, np.ndarray]:
    """What tests/flag_embedding.py writes: batch 0 has all texts, each later batch has one text."""
    texts = list(TEXTS.values())
    task = {
        "model": str(folder),
        "batches": [texts, *([text] for text in texts)],
        "pairs": PAIRS,
        "weights": WEIGHTS,
    }
    return run_theirs(task, tmp_path_factory.mktemp("parity") / "theirs.npz")


def run_theirs(task: dict, output: Path) -> dict[str, np.ndarray]:
    assert PYTHON.is_file(), "FlagEmbedding is not installed: make test-parity"
    task = task | {"output": str(output)}
    done = subprocess.run(
        [PYTHON, ROOT / "tests" / "flag_embedding.py"],
        input=json.dumps(task),
        text=True,
        capture_output=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    with np.load(output) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def ours(load_encoder, folder: Path, engine: dict) -> Encoder:
    return load_encoder(folder, **engine)


@pytest.fixture(scope="module")
def together(ours):
    return ours.encode(list(TEXTS.values()), pooling="cls", outputs=ALL)


def largest(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference; infinite for arrays of different shapes."""
    return float(np.abs(found - expected).max(initial=0.0)) if found.shape == expected.shape else np.inf


def assert_same(name: str, found, row: int, theirs, key: str) -> None:
    ids, weights = found.sparse[row]
    dense = largest(found.dense[row], theirs[f"{key}/dense"])
    sparse = largest(weights, theirs[f"{key}/lexical"])
    colbert = largest(found.multi_vector[row], theirs[f"{key}/colbert"])
    print(f"{name}: dense {dense:.1e}, sparse {sparse:.1e}, multi-vector {colbert:.1e}")
    assert ids.tolist() == theirs[f"{key}/ids"].tolist()
    assert dense <= 1e-5
    assert sparse <= 1e-4
    assert colbert <= 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_a_text_alone(ours, theirs, name):
    found = ours.encode([TEXTS[name]], pooling="cls", outputs=ALL)
    assert_same(name, found, 0, theirs, f"{1 + NAMES.index(name)}/0")


@pytest.mark.parametrize("name", NAMES)
def test_the_text_among_all_of_them(together, theirs, name):
    assert_same(name, together, NAMES.index(name), theirs, f"0/{NAMES.index(name)}")


def test_what_is_compared_is_there(together, theirs):
    assert together.token_counts[-2:] == [LIMIT, LIMIT]
    assert together.truncated == [NAMES.index("one token beyond")]
    weighty = [name for row, name in enumerate(NAMES) if len(theirs[f"0/{row}/ids"])]
    assert weighty == [name for name in NAMES if name != "empty"]
    assert (theirs["score/sparse"] > 0).sum() >= 5


def test_scores_are_those_of_compute_score(ours, theirs):
    found = ours.score(PAIRS, WEIGHTS, pooling="cls").by_name
    expected = {
        key.removeprefix("score/"): values for key, values in theirs.items() if key.startswith("score/")
    }
    assert set(found) == set(expected)
    differences = {name: largest(scores, expected[name]) for name, scores in found.items()}
    print(", ".join(f"{name} {difference:.1e}" for name, difference in differences.items()))
    assert max(differences.values()) <= 1e-4


# The empty passage is left out: with transformers 5 FlagEmbedding passes on texts, not token ids, and
# transformers takes an empty second text for none.

LONG_PAIRS = [
    *(pair for pair in PAIRS if all(pair)),
    ("warm " * 30, "one two three " * 400),  # only the passage is too long
    ("one two " * 400, "a rose is a rose"),  # only the query
    ("one two " * 400, "a rose is a rose " * 200),
]


@pytest.fixture(scope="module", params=["tiny", "full size"])
def reranker_folder(request, tmp_path_factory) -> Path:
    """The reranker's folder, with the other files that FlagEmbedding reads."""
    if request.param == "full size":
        if not is_complete(RERANKER, reranker=True):
            make_reranker(RERANKER, DEMO / "tokenizer.json")
        return RERANKER
    tiny = request.getfixturevalue("tiny_reranker")
    folder = tmp_path_factory.mktemp("models") / "reranker"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("native", "openvino"))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER))
    return folder


@pytest.fixture(scope="module")
def their_scores(reranker_folder, tmp_path_factory) -> dict[str, np.ndarray]:
    task = {"reranker": str(reranker_folder), "pairs": LONG_PAIRS}
    return run_theirs(task, tmp_path_factory.mktemp("parity") / "scores.npz")


def test_pairs_score_as_with_flag_embeddings_reranker(
    load_encoder, tiny_folder, reranker_folder, their_scores, engine
):
    reranker = Reranker(RerankerSettings(reranker_folder), load_encoder(tiny_folder, **engine))
    reranker.load()
    found = reranker.score(LONG_PAIRS).by_name[CROSS_ENCODER]
    reranker.close()
    assert np.std(their_scores["raw"]) > 0.1, "the pairs are hardly different"
    assert largest(found, their_scores["raw"]) <= 1e-4
    assert largest(1 / (1 + np.exp(-found)), their_scores["normalized"]) <= 1e-4


def test_token_pooling_is_scipys(demo_with_heads, load_encoder, tmp_path):
    """On real token states, and on rows that are practically random."""
    encoder = load_encoder(demo_with_heads, engine="torch")
    texts = [*HELD_OUT.read_text(encoding="utf-8").splitlines()[:6], "word " * 500]
    given = dict(enumerate(encoder.encode(texts, outputs=("colbert",)).multi_vector))
    rows = np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32)
    given[len(given)] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.savez(tmp_path / "given.npz", **{str(name): rows for name, rows in given.items()})
    files = [tmp_path / "given.npz", tmp_path / "theirs.npz"]
    subprocess.run([PYTHON, ROOT / "tests" / "scipy_pooling.py", *files], check=True)
    with np.load(files[1]) as theirs:
        for name, rows in given.items():
            for factor in POOL_FACTORS:
                assert largest(pool([rows], factor)[0], theirs[f"{name}/{factor}"]) <= 1e-5, (name, factor)
