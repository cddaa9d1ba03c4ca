"""Lexical weights and multi-vectors on real models, against numpy on the states of transformers."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, PreTrainedTokenizerFast

from app.engine import scores
from app.engine.errors import Abandoned, MissingHead
from app.engine.heads import lexical_weights
from app.engine.scores import ROWS, multi_vector_score
from app.engine.texts import HELD_OUT
from app.engine.token_pooling import GROUP_TOKENS

TEXTS = [
    "word",
    "",
    "Hello мир, 你好 wereld! مرحبا بالعالم",
    "🚀 emoji 👩‍👩‍👧‍👦 and ﬁgures ①②③",
    "a rose is a rose is a rose " * 9,
    "什么是机器学习？",
    "<unk> </s> <mask> written out",
    "What is BGE M3?",
]
ALL = ("dense", "sparse", "colbert")
SPECIAL = {0, 1, 2, 3}  # <s>, <pad>, </s>, <unk>


@pytest.fixture(scope="module")
def states(tiny_folder):
    """The ids and states of each text, computed one at a time with transformers."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tiny_folder / "tokenizer.json"))
    model = AutoModel.from_pretrained(tiny_folder, dtype=torch.float32, local_files_only=True).eval()
    found = []
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            found.append((ids[0].tolist(), model(input_ids=ids).last_hidden_state[0].double().numpy()))
    return found


@pytest.fixture(scope="module")
def linear(tiny_folder):
    """Head name -> matrix and bias."""
    return {
        name: {
            key: value.double().numpy()
            for key, value in torch.load(tiny_folder / f"{name}_linear.pt", weights_only=True).items()
        }
        for name in ("sparse", "colbert")
    }


def independent_lexical(ids, hidden, head):
    found = {}
    for token, state in zip(ids, hidden, strict=True):
        weight = max(0.0, float(head["weight"][0] @ state + head["bias"][0]))
        if token not in SPECIAL and weight > 0:
            found[token] = max(weight, found.get(token, 0.0))
    return found


def independent_multi_vector(hidden, head):
    rows = hidden[1:] @ head["weight"].T + head["bias"]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_all_outputs_are_those_of_the_reference(tiny, states, linear):
    found = tiny.encode(TEXTS, outputs=ALL)
    for (ids, hidden), (tokens, weights), vectors in zip(
        states, found.sparse, found.multi_vector, strict=True
    ):
        expected = independent_lexical(ids, hidden, linear["sparse"])
        assert tokens.tolist() == sorted(expected)
        np.testing.assert_allclose(weights, [expected[token] for token in tokens], atol=1e-4)
        assert vectors.shape == (len(ids) - 1, 64)
        np.testing.assert_allclose(vectors, independent_multi_vector(hidden, linear["colbert"]), atol=1e-4)
    assert any(len(tokens) for tokens, _ in found.sparse)
    assert found.sparse[1][0].size == 0
    np.testing.assert_allclose(found.dense, tiny.encode(TEXTS).dense, atol=1e-6)


@pytest.mark.parametrize("outputs", [("sparse",), ("colbert",), ("dense",), ("sparse", "colbert")])
def test_only_what_is_asked_for_comes_back_and_is_the_same(tiny, outputs):
    everything, found = tiny.encode(TEXTS, outputs=ALL), tiny.encode(TEXTS, outputs=outputs)
    assert (len(found.dense), len(found.sparse), len(found.multi_vector)) == tuple(
        len(TEXTS) if name in outputs else 0 for name in ALL
    )
    for (ids, weights), (all_ids, all_weights) in zip(found.sparse, everything.sparse, strict=False):
        np.testing.assert_array_equal(ids, all_ids)
        np.testing.assert_allclose(weights, all_weights, atol=1e-5)
    for rows, all_rows in zip(found.multi_vector, everything.multi_vector, strict=False):
        np.testing.assert_allclose(rows, all_rows, atol=1e-5)


def test_asking_for_nothing_counts_tokens(tiny):
    found = tiny.encode(TEXTS, outputs=())
    assert found.token_counts == tiny.encode(TEXTS).token_counts
    assert (len(found.dense), found.sparse, found.multi_vector) == (0, [], [])


def test_the_length_a_vector_had_is_kept(tiny, states):
    found = tiny.encode(TEXTS)
    expected = [hidden.mean(axis=0) for _, hidden in states]
    np.testing.assert_allclose(found.dense * found.lengths[:, None], expected, atol=1e-4)


def test_a_text_alone_gets_what_it_gets_among_others(tiny):
    together = tiny.encode(TEXTS, outputs=ALL)
    for index, text in enumerate(TEXTS):
        alone = tiny.encode([text], outputs=ALL)
        np.testing.assert_array_equal(alone.sparse[0][0], together.sparse[index][0])
        np.testing.assert_allclose(alone.sparse[0][1], together.sparse[index][1], atol=1e-4)
        np.testing.assert_allclose(alone.multi_vector[0], together.multi_vector[index], atol=1e-4)


def test_a_text_at_the_limit_and_one_beyond(tiny):
    full = "a " * 8190
    at, beyond = tiny.encode([full, full + "a a a"], outputs=ALL).multi_vector
    assert at.shape == beyond.shape == (8191, 64)
    np.testing.assert_allclose(at, beyond, atol=1e-4)


def test_lexical_weights_by_hand():
    ids = np.array([0, 9, 5, 9, 7, 2, 3])
    values = np.array([8.0, 0.5, -1.0, 0.75, 0.25, 8.0, 8.0], np.float32)
    tokens, weights = lexical_weights(ids, values, np.array([0, 1, 2, 3]))
    assert tokens.tolist() == [7, 9]
    assert weights.tolist() == [0.25, 0.75]


def test_a_head_that_is_not_there_is_never_invented(load_encoder, demo_folder, engine):
    demo = load_encoder(demo_folder, **engine)
    assert demo.heads == ()
    with pytest.raises(MissingHead, match="no lexical weights"):
        demo.encode(["a"], outputs=("dense", "sparse"))
    with pytest.raises(MissingHead, match="no multi-vectors"):
        demo.encode(["a"], outputs=("colbert",))


class TooMany(Exception):
    pass


def at_most(limit: int, told: list[int]):
    def expect(numbers: int) -> None:
        told.append(numbers)
        if numbers > limit:
            raise TooMany

    return expect


def test_how_many_numbers_come_is_told_before_they_are_computed(tiny):
    told = []
    expect = at_most(2000, told)
    found = tiny.encode(["one two three"], outputs=ALL, expect=expect)
    assert told == [64 + 2 * found.tokens + found.multi_vector[0].size]
    with pytest.raises(TooMany):
        tiny.encode(["word " * 40], outputs=("colbert",), expect=expect)
    assert len(tiny.encode(["word " * 40], expect=expect).dense) == 1


def test_the_numbers_that_scores_are_made_of_are_told_too(tiny):
    """They are those of all queries, plus those of the largest group of other texts."""
    told = []
    queries = [f"{'question ' * 100}{number}" for number in range(20)]
    passages = [f"{'text ' * 3000}{number}" for number in range(8)]  # five of them make a group
    for texts in (queries, passages[:5], passages[5:]):
        tiny.encode(texts, outputs=ALL, expect=at_most(1 << 30, told))
    with pytest.raises(TooMany):
        tiny.score([(query, passage) for query in queries for passage in passages], expect=at_most(1, told))
    assert told[-1] == told[0] + max(told[1:3])


def test_scores_are_those_of_compute_score(tiny):
    queries = ["What is BGE M3?", "a rose"]
    passages = ["BGE M3 is an embedding model", "roses are red, a rose is a rose", "a rose"]
    pairs = [(query, passage) for query in queries for passage in passages]
    found = tiny.score(pairs, (0.4, 0.2, 0.4))
    texts = list(dict.fromkeys(queries + passages))
    one = tiny.encode(texts, outputs=ALL, pooling="cls")  # the folder says it was trained for cls
    place = {text: index for index, text in enumerate(texts)}
    for number, (query, passage) in enumerate(pairs):
        q, p = place[query], place[passage]
        dense = sum(a * b for a, b in zip(one.dense[q].tolist(), one.dense[p].tolist(), strict=True))
        weight = [dict(zip(ids.tolist(), values.tolist(), strict=True)) for ids, values in one.sparse]
        sparse = sum(value * weight[p].get(token, 0) for token, value in weight[q].items())
        matches = one.multi_vector[q].astype(float) @ one.multi_vector[p].astype(float).T
        colbert = matches.max(axis=1).sum() / len(matches)
        expected = {
            "dense": dense,
            "sparse": sparse,
            "colbert": colbert,
            "sparse+dense": (0.2 * sparse + 0.4 * dense) / 0.6,
            "colbert+sparse+dense": 0.4 * dense + 0.2 * sparse + 0.4 * colbert,
        }
        assert list(found.by_name) == list(expected)
        for name, value in expected.items():
            assert found.by_name[name][number] == pytest.approx(value, abs=1e-4), name
    assert found.tokens == sum(one.token_counts)
    assert found.best == "colbert+sparse+dense"


def test_each_pair_is_compared_once(tiny, monkeypatch):
    compared = []
    one = scores._score
    monkeypatch.setattr(scores, "_score", lambda *texts: compared.append(texts) or one(*texts))
    found = tiny.score([("a", "b")] * 50 + [("b", "a")] * 50 + [("b", "b")])
    assert len(compared) == 3
    assert len(set(found.by_name["dense"].tolist())) <= 3
    assert found.by_name["colbert"][0] == found.by_name["colbert"][49]


def test_a_text_scores_at_most_1_with_itself(tiny):
    """Rounding alone could make it slightly more."""
    texts = [f"text number {number} " + number % 7 * "word " for number in range(100)]
    found = tiny.score([(text, text) for text in texts])
    for name in ("dense", "colbert"):
        assert found.by_name[name].max() <= 1
        assert found.by_name[name].min() > 0.9999


def test_long_queries_are_compared_without_a_large_matrix():
    rng = np.random.default_rng(0)
    query, passage = rng.normal(size=(ROWS + 7, 8)), rng.normal(size=(30, 8))
    looks = []
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    passage /= np.linalg.norm(passage, axis=1, keepdims=True)
    found = multi_vector_score(query, passage, lambda: looks.append(1))
    assert found == pytest.approx((query @ passage.T).max(axis=1).mean())
    assert looks == [1]


def test_between_two_pairs_somebody_looks_whether_the_client_is_there(tiny, monkeypatch):
    """Also with an empty queue and after every text is encoded."""
    pairs = [("a query", f"passage {number}") for number in range(30)]
    monkeypatch.setattr(scores, "STEP", 1)
    compared = []

    def gone() -> bool:
        return bool(compared)

    with pytest.MonkeyPatch.context() as patch:
        one = scores._score
        patch.setattr(scores, "_score", lambda *texts: compared.append(texts) or one(*texts))
        patch.setattr("app.engine.job.LOOK_SECONDS", -1.0)
        with pytest.raises(Abandoned):
            tiny.score(pairs, gone=gone)
    assert len(compared) < 3


def test_what_pairs_cost_counts_where_it_is_decided_who_may_wait(load_encoder, tiny_folder, monkeypatch):
    asked, tiny = [], load_encoder(tiny_folder)
    monkeypatch.setattr(tiny.batcher, "check", lambda tokens, _caller: asked.append(tokens))
    queries, passages = ([f"{word * 100}{number}" for number in range(20)] for word in ("query ", "passage "))
    found = tiny.score([(query, passage) for query in queries for passage in passages] * 2)
    pairs = sum(a * b for a in found.token_counts[:20] for b in found.token_counts[20:])
    layers, width, inner = 2, 64, 128
    cost = pairs * width / (layers * (4 * width**2 + 2 * width * inner))
    assert cost > found.tokens  # for so small a model
    assert asked[-1] == found.tokens + round(cost)


def test_many_passages_score_as_each_does_alone(tiny):
    passages = [f"passage {number} " + "word " * 300 for number in range(2 * GROUP_TOKENS // 1500)]
    found = tiny.score([("a word", passage) for passage in passages])
    alone = [tiny.score([("a word", passage)]) for passage in passages]
    for name, values in found.by_name.items():
        np.testing.assert_allclose(values, [one.by_name[name][0] for one in alone], atol=1e-4)


def test_a_model_without_heads_is_scored_by_dense_vectors(load_encoder, demo_folder, engine):
    demo = load_encoder(demo_folder, **engine)
    found = demo.score([("machine learning", "maschinelles Lernen"), ("machine learning", "Wetter")])
    assert list(found.by_name) == ["dense"]
    assert found.by_name["dense"][0] > found.by_name["dense"][1]
    assert demo.score([]).by_name["dense"].shape == (0,)


# The share of a text's 20 heaviest tokens that stay (mean over texts), the largest error of a weight relative
# to the heaviest, and the lowest cosine of a token's vector.
FLOORS = {"bf16": (0.98, 0.02, 0.9995), "int8": (0.95, 0.06, 0.995)}


@pytest.mark.parametrize("precision", ["bf16", pytest.param("int8", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "model", ["shallow_with_heads", pytest.param("demo_with_heads", marks=pytest.mark.slow)]
)
def test_what_lower_precision_costs_the_heads(load_encoder, request, model, precision):
    folder = request.getfixturevalue(model)
    texts = TEXTS + HELD_OUT.read_text(encoding="utf-8").splitlines()[:60]
    exact = load_encoder(folder, precision="fp32").encode(texts, outputs=ALL)
    rough = load_encoder(folder, precision=precision).encode(texts, outputs=ALL)
    overlaps, errors, cosines = [], [], []
    for (ids, weights), (others, other_weights) in zip(exact.sparse, rough.sparse, strict=True):
        if len(ids):
            top, other_top = ids[np.argsort(-weights)[:20]], others[np.argsort(-other_weights)[:20]]
            overlaps.append(len(set(top) & set(other_top)) / len(top))
            both = dict(zip(others.tolist(), other_weights.tolist(), strict=True))
            pairs = zip(ids.tolist(), weights.tolist(), strict=True)
            errors.append(max(abs(weight - both.get(token, 0.0)) for token, weight in pairs))
    for rows, others in zip(exact.multi_vector, rough.multi_vector, strict=True):
        cosines.append((rows * others).sum(axis=1).min())
    heaviest = max(weights.max() for _, weights in exact.sparse if len(weights))
    print(
        f"{precision}: top-20 overlap {np.mean(overlaps):.3f}, largest error of a weight "
        f"{max(errors) / heaviest:.4f}, lowest cosine of a token {min(cosines):.5f}"
    )
    overlap, error, cosine = FLOORS[precision]
    assert np.mean(overlaps) >= overlap
    assert max(errors) / heaviest <= error
    assert min(cosines) >= cosine
