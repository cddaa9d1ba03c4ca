"""The published numbers of BGE-M3 itself; they need the real weights."""

import numpy as np
import pytest

from tests.conftest import BGE_M3

pytestmark = [
    pytest.mark.bge_m3,
    pytest.mark.skipif(
        not (BGE_M3 / "pytorch_model.bin").is_file(), reason="models/bge-m3 has no weights: make model"
    ),
]

# The model card's own sentences, its spelling included.
QUESTIONS = ["What is BGE M3?", "Defination of BM25"]
PASSAGES = [
    "BGE M3 is an embedding model supporting dense retrieval, lexical matching and multi-vector interaction.",
    "BM25 is a bag-of-words retrieval function that ranks a set of documents based on the query terms "
    "appearing in each document",
]


@pytest.fixture(scope="module")
def bge_m3(load_encoder, engine):
    return load_encoder(BGE_M3, **engine)


def test_similarities_are_those_of_the_model_card(bge_m3):
    questions = bge_m3.encode(QUESTIONS, pooling="cls").dense
    passages = bge_m3.encode(PASSAGES, pooling="cls").dense
    card = [[0.6265, 0.3477], [0.3499, 0.678]]  # computed in half precision
    notebook = [[0.6259035, 0.34749585], [0.349868, 0.6782462]]
    np.testing.assert_allclose(questions @ passages.T, card, atol=2e-3)
    np.testing.assert_allclose(questions @ passages.T, notebook, atol=2e-4)


def test_a_raw_vector_is_that_of_another_runtime(bge_m3):
    vector = bge_m3.encode(["A long text to test the embeddings"], pooling="cls").dense[0]
    expected = [-0.0474198, -0.0208598, -0.0282255, 0.0229996, -0.0115597, -0.0701290, 0.0334038, -0.0197622]
    np.testing.assert_allclose(vector[:8], expected, atol=1e-4)


def test_a_query_finds_its_passage_across_languages(bge_m3):
    dense = bge_m3.encode(["什么是机器学习？", "Was ist maschinelles Lernen?", "今天天气很好"]).dense
    assert dense[0] @ dense[1] > dense[0] @ dense[2] + 0.1
