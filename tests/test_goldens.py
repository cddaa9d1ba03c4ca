"""The published numbers of BGE-M3; this needs the real weights."""

import numpy as np
import pytest

from tests.conftest import BGE_M3

pytestmark = [
    pytest.mark.bge_m3,
    pytest.mark.skipif(
        not (BGE_M3 / "pytorch_model.bin").is_file(), reason="models/bge-m3 has no weights: make model"
    ),
]

# The model card's own sentences, with its misspelling.
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


def test_lexical_weights_are_those_of_the_notebook(bge_m3):
    found = bge_m3.encode([*QUESTIONS, ""], outputs=("sparse",)).sparse
    weights = [dict(zip(bge_m3.token_strings(ids), values.tolist(), strict=True)) for ids, values in found]
    # fmt: off
    assert weights[0] == pytest.approx({
        "What": 0.08362077, "is": 0.081469566, "B": 0.12964639, "GE": 0.25186998, "M": 0.17001738,
        "3": 0.26957875, "?": 0.040755156,
    }, abs=1e-3)
    assert weights[1] == pytest.approx({
        "De": 0.050144322, "fin": 0.13689369, "ation": 0.045134712, "of": 0.06342201, "BM": 0.25167602,
        "25": 0.33353207,
    }, abs=1e-3)
    # fmt: on
    assert weights[2] == {}
    assert found[0][0].tolist() == [32, 83, 276, 335, 363, 4865, 11679]


def test_multi_vectors_have_a_row_for_each_token_but_the_first(bge_m3):
    found = bge_m3.encode([QUESTIONS[0], PASSAGES[0]], outputs=("colbert",)).multi_vector
    assert [rows.shape for rows in found] == [(8, 1024), (30, 1024)]


def test_scores_are_those_of_the_model_card(bge_m3):
    pairs = [(question, passage) for question in QUESTIONS for passage in PASSAGES]
    found = bge_m3.score(pairs, (0.4, 0.2, 0.4), pooling="cls").by_name
    card = {
        "colbert": [0.77965, 0.46215, 0.45238, 0.78986],
        "sparse": [0.19556, 0.008797, 0.0, 0.18030],
        "dense": [0.62598, 0.34741, 0.34985, 0.67822],
        "sparse+dense": [0.48250, 0.23454, 0.23324, 0.51225],
        "colbert+sparse+dense": [0.60136, 0.32558, 0.32089, 0.62329],
    }
    assert set(found) == set(card)
    for name, expected in card.items():
        np.testing.assert_allclose(found[name], expected, atol=2e-3, err_msg=name)
    # From the notebook: single numbers of vectors and weights.
    np.testing.assert_allclose(found["sparse"][:2], [0.19554448, 0.00880392], atol=1e-3)
    np.testing.assert_allclose(found["colbert"][:2], [0.7796662, 0.4621178], atol=2e-3)
    apart = bge_m3.score([(QUESTIONS[0], QUESTIONS[1])], pooling="cls").by_name
    assert apart["sparse"][0] == pytest.approx(0.0, abs=1e-6)
