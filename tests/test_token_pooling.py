"""Pooled multi-vectors: Ward's clusters of tokens against the definition, and how calls use them."""

import numpy as np
import pytest
import torch

from app.engine import token_pooling
from app.engine.embeddings import count_numbers
from app.engine.encoder import Encoder, EncoderSettings
from app.engine.errors import Abandoned, NotFinite
from app.engine.heads import normalize
from app.engine.token_pooling import BLOCK, count_pooled, groups, pool, pooled_rows, ward
from tests.conftest import assert_alike

OUTPUTS = ("dense", "sparse", "colbert")
FACTORS = range(2, 9)


def unit_rows(rows: int, width: int = 16, seed: int = 0) -> np.ndarray:
    """Random rows of length 1; some are alike, as tokens are."""
    chance = np.random.default_rng(seed)
    centres = chance.normal(size=(rows // 4 + 1, width))
    return normalize(centres[chance.integers(len(centres), size=rows)] + chance.normal(size=(rows, width)))


def distances(rows: np.ndarray) -> np.ndarray:
    return 1.0 - (rows @ rows.T).astype(np.float64)


def one_by_one(given: np.ndarray, clusters: int) -> np.ndarray:
    """The definition: merge the two clusters with the least Ward distance, again and again.

    The distance is computed from the mean squares of all distances between and within both clusters.
    """
    squared = given**2
    members = [[thing] for thing in range(len(given))]

    def mean(a, b):
        return squared[np.ix_(a, b)].mean()

    def between(a, b):
        return len(a) * len(b) / (len(a) + len(b)) * (2 * mean(a, b) - mean(a, a) - mean(b, b))

    while len(members) > clusters:
        pairs = [(a, b) for a in range(len(members)) for b in range(a)]
        a, b = min(pairs, key=lambda pair: between(members[pair[0]], members[pair[1]]))
        members[b] = sorted(members[b] + members.pop(a))
    found = np.empty(len(given), int)
    for cluster in members:
        found[cluster] = cluster[0]
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rows", [2, 3, 25])
def test_clusters_are_wards(rows, seed):
    given = distances(unit_rows(rows, seed=seed))
    np.fill_diagonal(given, 0)
    for clusters in {1, 2, rows // 4 + 1, rows // 2, rows - 1} - {rows}:
        found = ward(given, clusters)
        assert len(set(found)) == clusters
        np.testing.assert_array_equal(found, one_by_one(given, clusters))


@pytest.mark.parametrize("clusters", [1, 7, 50, 99])
def test_as_many_clusters_as_asked_for_where_distances_are_equal(clusters):
    """scipy's fcluster gives one cluster here."""
    found = ward(np.zeros((100, 100)), clusters)
    assert len(set(found)) == clusters
    np.testing.assert_array_equal(found, ward(np.zeros((100, 100)), clusters))


def test_by_hand():
    east, north, up = np.eye(3, dtype=np.float32)
    nearly = normalize(np.float32([0.2, 1, 0]))
    (found,) = pool([np.stack([north, east, nearly, east, up, up])], 2)
    # In the order of each cluster's first row.
    np.testing.assert_allclose(found, [normalize(north + nearly), east, up], atol=1e-6)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 100, BLOCK, BLOCK + 1, 2 * BLOCK + 1])
def test_how_many_rows_are_left(rows, factor):
    (found,) = pool([unit_rows(rows)], factor)
    assert len(found) == pooled_rows(rows, factor)
    assert max(1, rows // factor - rows // BLOCK) <= len(found) <= max(1, rows // factor)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_every_row_is_in_one_mean():
    rows = unit_rows(60)
    labels = ward(distances(rows), 20)
    (found,) = pool([rows], 3)
    for vector, first in zip(found, np.unique(labels), strict=True):
        np.testing.assert_allclose(vector, normalize(rows[labels == first].mean(axis=0)), atol=1e-6)


def test_a_long_text_is_pooled_in_blocks():
    rows = unit_rows(2 * BLOCK)
    (found,) = pool([rows], 4)
    halves = [pool([half], 4)[0] for half in (rows[:BLOCK], rows[BLOCK:])]
    np.testing.assert_array_equal(found, np.concatenate(halves))


def test_whoever_waits_is_looked_at_before_each_block():
    pauses = []

    def pause():
        pauses.append(1)
        if len(pauses) == 3:
            raise Abandoned

    with pytest.raises(Abandoned):
        pool([unit_rows(2 * BLOCK), unit_rows(5), unit_rows(5)], 2, pause)
    assert len(pauses) == 3


def test_groups_hold_every_text_once_and_no_more_than_they_may(monkeypatch):
    monkeypatch.setattr(token_pooling, "GROUP_TOKENS", 10)
    assert groups([4, 6, 1, 12, 3, 3]) == [[0, 1], [2], [3], [4, 5]]
    assert groups([]) == [[]]


TEXTS = ["word", "", "什么是机器学习？", "a rose is a rose is a rose " * 9, "one two three four five " * 20]


@pytest.mark.parametrize("factor", [2, 5, 8])
def test_a_call_gives_the_pooled_rows_of_what_it_gives_without(tiny, factor):
    told = []
    found = tiny.encode(TEXTS, outputs=OUTPUTS, colbert_pool=factor, expect=told.append)
    whole = tiny.encode(TEXTS, outputs=OUTPUTS)
    for pooled, rows in zip(found.multi_vector, pool(whole.multi_vector, factor), strict=True):
        np.testing.assert_allclose(pooled, rows, atol=1e-4)
    np.testing.assert_allclose(found.dense, whole.dense, atol=1e-6)
    assert [list(ids) for ids, _ in found.sparse] == [list(ids) for ids, _ in whole.sparse]
    assert found.token_counts == whole.token_counts
    numbers = count_numbers(found.token_counts, tiny.width, ("dense", "sparse"))
    before = sum(rows.size for rows in whole.multi_vector)  # in memory during the call
    assert told == [numbers + before + sum(rows.size for rows in found.multi_vector)]


def test_groups_change_nothing(tiny, monkeypatch):
    together = tiny.encode(TEXTS, outputs=OUTPUTS, colbert_pool=3)
    monkeypatch.setattr(token_pooling, "GROUP_TOKENS", 40)
    apart = tiny.encode(TEXTS, outputs=OUTPUTS, colbert_pool=3)
    assert apart.token_counts == together.token_counts
    np.testing.assert_allclose(apart.lengths, together.lengths, rtol=1e-4)
    assert_alike(apart, together)


def test_texts_that_were_cut_are_told_of_in_every_group(reference, monkeypatch):
    monkeypatch.setattr(token_pooling, "GROUP_TOKENS", 40)
    found = reference.encode(["a", "a " * 9000, "b"], outputs=("colbert",), colbert_pool=8)
    assert found.truncated == [1]
    assert [len(rows) for rows in found.multi_vector] == [1, pooled_rows(8191, 8), 1]


def test_only_the_largest_group_is_in_memory_as_it_was(monkeypatch):
    """So pooled answers may have more texts than others."""
    monkeypatch.setattr(token_pooling, "GROUP_TOKENS", 1000)
    counts = [101] * 100
    numbers = count_pooled(counts, 8, ("colbert",), 4)
    assert numbers == 8 * (100 * 25 + 9 * 100)
    assert numbers < count_numbers(counts, 8, ("colbert",)) / 2


def test_without_multi_vectors_it_changes_nothing(tiny):
    told = []
    found = tiny.encode(TEXTS, colbert_pool=2, expect=told.append)
    assert found.multi_vector == []
    assert told == [found.dense.size]


def test_a_text_in_a_later_group_that_is_not_finite_is_named(broken_folder, tiny_folder, monkeypatch):
    monkeypatch.setattr(token_pooling, "GROUP_TOKENS", 40)
    weights = torch.load(tiny_folder / "pytorch_model.bin", weights_only=True)
    weights["embeddings.word_embeddings.weight"][35378] = float("nan")  # "Hello"
    (broken_folder / "pytorch_model.bin").unlink()
    torch.save(weights, broken_folder / "pytorch_model.bin")
    encoder = Encoder(EncoderSettings(path=broken_folder, engine="torch"))
    encoder.load()
    try:
        with pytest.raises(NotFinite, match="text 5"):
            encoder.encode([*TEXTS, "Hello"], outputs=OUTPUTS, colbert_pool=2)
    finally:
        encoder.close()
