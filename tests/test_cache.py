"""Texts that come again are taken from the cache, and nothing else is."""

import random
import re
import threading

import numpy as np
import pytest

from app import create_app
from app.config import Settings
from app.engine.cache import Cache
from app.engine.embeddings import Chunking, Timings
from app.engine.encoder import Encoder, EncoderSettings
from app.engine.errors import NotFinite

ALL = ("dense", "sparse", "colbert")


@pytest.fixture(scope="module")
def cached(tiny_folder):
    encoder = Encoder(EncoderSettings(tiny_folder, precision="fp32", threads=2, cache_texts=40))
    encoder.load()
    yield encoder
    encoder.close()


@pytest.fixture(scope="module")
def plain(load_encoder, tiny_folder):
    return load_encoder(tiny_folder, precision="fp32")


def test_a_text_is_computed_once(cached):
    first = cached.encode(["once", "twice", "once"], outputs=("dense", "sparse"))
    again = cached.encode(["twice", "new", "once"], outputs=("dense", "sparse"))
    assert (first.cached, again.cached) == (0, 2)
    np.testing.assert_array_equal(again.dense[[0, 2]], first.dense[[1, 0]])
    for (ids, weights), place in zip([again.sparse[0], again.sparse[2]], (1, 0), strict=True):
        np.testing.assert_array_equal(ids, first.sparse[place][0])
        np.testing.assert_array_equal(weights, first.sparse[place][1])
    assert again.token_counts == [first.token_counts[1], again.token_counts[1], first.token_counts[0]]


def test_what_was_not_computed_is_not_there(cached):
    assert cached.encode(["kinds"]).cached == 0
    assert cached.encode(["kinds"], pooling="cls").cached == 0
    assert cached.encode(["kinds"], outputs=("sparse",)).cached == 0
    assert cached.encode(["kinds"], outputs=("dense", "sparse")).cached == 1
    assert cached.encode(["kinds"], outputs=ALL).cached == 0
    assert cached.encode(["kinds"], outputs=ALL).cached == 0, "multi-vectors are not kept"


def test_the_least_recently_used_text_goes_first(tiny_folder):
    encoder = Encoder(EncoderSettings(tiny_folder, precision="fp32", cache_texts=2))
    encoder.load()
    encoder.encode(["a", "b"])
    encoder.encode(["a"])
    encoder.encode(["c"])
    assert [encoder.encode([text]).cached for text in ("a", "c")] == [1, 1]
    assert encoder.encode(["b"]).cached == 0
    encoder.close()


def test_nothing_is_kept_unless_it_is_asked_for(plain):
    assert [plain.encode(["again"]).cached for _ in range(2)] == [0, 0]


def test_scores_use_it_where_all_they_need_is_kept(cached):
    cached.encode(["q", "p"], outputs=("dense", "sparse"))
    assert cached.score([("q", "p")]).cached == 0, "multi-vectors are not kept"


def test_no_two_different_requests_share_an_entry(cached, plain):
    """Random requests from a few texts, each compared with an encoder that has no cache."""
    draw = random.Random(20)
    words = ["a", "b", "ab", "a b", "a  b", "A", "ａ", "", " ", "b a", "e\u0301", "é", "x" * 50, "a b " * 40]
    hits = 0
    for _ in range(200):
        texts = [draw.choice(words) for _ in range(draw.randrange(1, 5))]
        asked = {
            "pooling": draw.choice(["mean", "cls", None]),
            "outputs": draw.sample(ALL, draw.randrange(1, 4)),
            "truncate": draw.choice(["right", "left", None]),
            "chunk": draw.choice([None, None, Chunking(32, 0), Chunking(32, 16), Chunking(32, 0, late=True)]),
        }
        if asked["chunk"] and asked["chunk"].late:
            asked["pooling"] = "mean"
        found, expected = cached.encode(texts, **asked), plain.encode(texts, **asked)
        hits += found.cached
        np.testing.assert_allclose(found.dense, expected.dense, atol=1e-5)
        np.testing.assert_allclose(found.lengths, expected.lengths, rtol=1e-4)
        assert len(found.sparse) == len(expected.sparse)
        for (ids, weights), (same, told) in zip(found.sparse, expected.sparse, strict=True):
            known = dict(zip(same.tolist(), told, strict=True))
            for token, weight in zip(ids.tolist(), weights, strict=True):
                assert weight == pytest.approx(known.get(token, 0.0), abs=1e-4)
        for rows, told in zip(found.multi_vector, expected.multi_vector, strict=True):
            np.testing.assert_allclose(rows, told, atol=1e-4)
        assert found.passages == expected.passages
        assert found.token_counts == expected.token_counts
    assert hits > 100


def test_a_fault_is_told_by_the_index_of_its_text():
    cache = Cache(9)
    one, two, three = (np.full(4, number) for number in range(3))
    row = [np.zeros(2, np.float32)]
    cache.compute([two], [("mean",)], lambda sequences, _: ([row] * len(sequences), Timings()))

    def fails(sequences, kinds):
        assert len(sequences) == 2
        raise NotFinite([1])

    with pytest.raises(NotFinite) as caught:
        cache.compute([one, two, three], [("mean",)] * 3, fails)
    assert caught.value.indices == [2]


def test_many_threads_at_once(cached):
    expected = cached.encode([f"text {number}" for number in range(60)]).dense
    wrong = []

    def ask(seed):
        draw = random.Random(seed)
        for _ in range(40):
            numbers = [draw.randrange(60) for _ in range(3)]
            found = cached.encode([f"text {number}" for number in numbers]).dense
            if not np.allclose(found, expected[numbers], atol=1e-5):
                wrong.append(numbers)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_hits_are_in_the_metrics(cached):
    client = create_app(Settings(model_name="tiny"), cached).test_client()

    def hits():
        [line] = re.findall(r"^embed_cached_texts_total (\S+)", client.get("/metrics").text, re.MULTILINE)
        return float(line)

    before = hits()
    for _ in range(2):
        assert client.post("/api/embed", json={"input": ["metric one", "metric two"]}).status_code == 200
    assert hits() - before == 2
