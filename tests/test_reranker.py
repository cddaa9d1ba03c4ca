"""Cross-encoders: pairs as in FlagEmbedding, scores as in transformers, one queue for both models."""

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from app.engine.checkpoint import read_checkpoint
from app.engine.embeddings import CROSS_ENCODER
from app.engine.encoder import Encoder, EncoderSettings
from app.engine.errors import Abandoned, ModelError, NotLoaded, Overloaded, TextTooLong, TooLate
from app.engine.loading import load_tokenizer
from app.engine.pairs import PairTokenizer
from app.engine.reranker import Reranker, RerankerSettings

QUERY = "why does water boil faster in the mountains?"
PASSAGES = [
    "the pressure of the air is lower there.",
    "a cat",
    "",
    "water, water everywhere, nor any drop to drink. " * 40,
    "what is that? " * 7,
]
PAIRS = [(QUERY, passage) for passage in PASSAGES] + [
    ("", ""),
    ("a cat", QUERY),
    ("warm " * 500, "a cat. " * 400),
]


@pytest.fixture(scope="module", params=["tiny_reranker", "tiny_bert_reranker"])
def folder(request) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def load(load_encoder, tiny_folder):
    loaded = []

    def load(folder: Path, max_tokens: int = 512, **settings) -> Reranker:
        reranker = Reranker(RerankerSettings(folder, max_tokens), load_encoder(tiny_folder, **settings))
        reranker.load()
        loaded.append(reranker)
        return reranker

    yield load
    for reranker in loaded:
        reranker.close()


@pytest.fixture(scope="module")
def reranker(load, tiny_reranker, engine) -> Reranker:
    return load(tiny_reranker, **engine)


def pair_tokenizer(folder: Path, max_tokens: int = 512) -> PairTokenizer:
    checkpoint = read_checkpoint(folder)
    return PairTokenizer(checkpoint, load_tokenizer(checkpoint, max_tokens), max_tokens)


reference_tokenizer = cache(AutoTokenizer.from_pretrained)


def as_flag_embedding(
    folder: Path, query: str, passage: str, limit: int = 512
) -> tuple[list[int], list[int]]:
    """Ids and types: the query is cut to three quarters, then the passage to what is left."""
    tokenizer = reference_tokenizer(folder)
    first, second = (
        tokenizer(text, add_special_tokens=False, truncation=True, max_length=most)["input_ids"]
        for text, most in ((query, limit * 3 // 4), (passage, limit))
    )
    begin, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    between = [end, end] if begin == 0 else [end]
    room = limit - len(first) - len(between) - 2
    ids = [begin, *first, *between, *second[:room], end]
    types = [0] * (1 + len(first) + 1) + [int(begin != 0)] * (len(ids) - len(first) - 2)
    return ids, types


def by_transformers(folder: Path, pairs: list[tuple[str, str]]) -> list[float]:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    scores = []
    for query, passage in pairs:
        ids, types = as_flag_embedding(folder, query, passage)
        with torch.inference_mode():
            found = model(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([types]))
        scores.append(found.logits[0, 0].item())
    return scores


def test_pairs_are_framed_and_cut_as_flag_embedding_does(folder):
    found = pair_tokenizer(folder).encode(PAIRS)
    vocabulary = read_checkpoint(folder).vocabulary
    for (query, passage), sequence in zip(PAIRS, found.sequences, strict=True):
        ids, types = as_flag_embedding(folder, query, passage)
        assert (sequence % vocabulary).tolist() == ids
        assert (sequence // vocabulary).tolist() == types
    assert found.truncated == [
        index for index, pair in enumerate(PAIRS) if "warm" in pair[0] or "drop" in pair[1]
    ]
    assert max(found.counts) == 512


def test_scores_are_those_of_transformers(folder, load, engine):
    found = load(folder, **engine).score(PAIRS)
    expected = by_transformers(folder, PAIRS)
    assert np.std(expected) > 0.1, "the pairs are hardly different"
    np.testing.assert_allclose(found.by_name[CROSS_ENCODER], expected, atol=1e-4)
    assert found.best == CROSS_ENCODER
    assert found.tokens == sum(len(as_flag_embedding(folder, *pair)[0]) for pair in PAIRS)
    assert found.cut == 2


def test_a_pair_scores_the_same_alone_and_among_others(reranker):
    together = reranker.score(PAIRS).by_name[CROSS_ENCODER]
    alone = [reranker.score([pair]).by_name[CROSS_ENCODER][0] for pair in PAIRS]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_no_pairs_have_no_scores(reranker):
    found = reranker.score([])
    assert found.by_name[CROSS_ENCODER].shape == (0,)
    assert found.tokens == 0


@pytest.mark.parametrize("precision", ["int8", "w8a16"])
def test_eight_bits_keep_the_order(tiny_reranker, load, precision):
    exact = load(tiny_reranker, engine="native", precision="fp32").score(PAIRS).by_name[CROSS_ENCODER]
    found = load(tiny_reranker, engine="native", precision=precision).score(PAIRS).by_name[CROSS_ENCODER]
    assert np.corrcoef(exact, found)[0, 1] > 0.99


def test_what_eight_bits_cost_is_measured_on_scores(tiny_reranker, load):
    load(tiny_reranker, engine="native", precision="int8")
    (cost,) = [
        found
        for name, found in json.loads((tiny_reranker / "native" / "w8" / "measured.json").read_text()).items()
        if name.startswith("int8")
    ]
    assert cost["pairs"] == 96
    assert 0.9 < cost["correlation"] < 1
    assert 0.7 < cost["order_kept"] <= 1
    assert 0 < cost["largest_difference"] < 10


def test_each_text_is_tokenised_once(tiny_reranker):
    pairs = pair_tokenizer(tiny_reranker)
    tokenised = []
    encode = pairs._tokenizer.encode
    pairs._tokenizer.encode = lambda texts, *rest, **limit: (
        tokenised.extend(texts) or encode(texts, *rest, **limit)
    )
    pairs.encode([(QUERY, passage) for passage in (*PASSAGES, *PASSAGES)])
    assert sorted(tokenised) == sorted([QUERY, *PASSAGES])


@pytest.mark.parametrize(
    ("pairs", "index", "tokens", "query"),
    [
        ([("a", "b"), ("a cat", "water " * 600)], 1, None, False),
        ([("a", "b"), ("a", "b"), ("water " * 400, "b")], 2, 400, True),
        ([("water " * 300, "cat " * 300)], 0, 604, False),
    ],
)
def test_what_may_not_be_cut_is_named(tiny_reranker, pairs, index, tokens, query):
    with pytest.raises(TextTooLong) as error:
        pair_tokenizer(tiny_reranker).encode(pairs, truncate=None)
    assert (error.value.index, error.value.query) == (index, query)
    assert tokens is None or error.value.tokens == tokens


def test_the_passage_keeps_its_end_where_it_is_cut_on_the_left(tiny_reranker):
    pairs = pair_tokenizer(tiny_reranker, 64)
    (whole,) = pair_tokenizer(tiny_reranker, 4096).encode([(QUERY, PASSAGES[3])]).sequences
    (cut,) = pairs.encode([(QUERY, PASSAGES[3])], "left").sequences
    assert len(cut) == 64
    front = len(pairs.encode([(QUERY, "")]).sequences[0]) - 1
    assert cut[:front].tolist() == whole[:front].tolist()
    assert cut[front:].tolist() == whole[front - 64 :].tolist()


def test_two_stages_compare_the_best_of_the_first(reranker, load_encoder, tiny_folder, engine):
    passages = [f"{word} and more" for word in ("water", "air", "cat", "boil", "drop", "lower")]
    pairs = [(QUERY, passage) for passage in passages]
    found = reranker.rank(QUERY, passages, 2)
    first = load_encoder(tiny_folder, **engine).score(pairs)
    assert list(found.by_name) == [*first.by_name, CROSS_ENCODER]
    for name, scores in first.by_name.items():
        np.testing.assert_array_equal(found.by_name[name], scores)
    best = set(np.argsort(-first.by_name[first.best])[:2].tolist())
    scores = found.by_name[CROSS_ENCODER]
    assert set(np.flatnonzero(np.isfinite(scores)).tolist()) == best
    second = reranker.score([pairs[index] for index in sorted(best)])
    np.testing.assert_allclose(scores[sorted(best)], second.by_name[CROSS_ENCODER], atol=1e-5)
    assert found.tokens == first.tokens + second.tokens


@pytest.mark.parametrize("passages", [["water", "air"], []])
def test_two_stages_of_fewer_passages_than_asked_for(reranker, passages):
    found = reranker.rank(QUERY, passages, 20)
    assert found.by_name[CROSS_ENCODER].shape == (len(passages),)
    assert np.isfinite(found.by_name[CROSS_ENCODER]).all()


def test_what_may_not_be_cut_in_the_second_stage_has_its_own_index(reranker):
    with pytest.raises(TextTooLong) as error:  # the encoder reads 8192 tokens
        reranker.rank(QUERY, ["a", "b", "c", "water " * 600, "d"], 5, truncate=None)
    assert error.value.index == 3


@pytest.fixture
def busy(load_encoder, tiny_folder, tiny_reranker):
    """A reranker with room for few tokens, and an event: its forward pass waits until that is set."""
    encoder = Encoder(
        EncoderSettings(tiny_folder, engine="native", precision="fp32", max_waiting=600, timeout=0.5)
    )
    encoder.load()
    reranker = Reranker(RerankerSettings(tiny_reranker), encoder)
    reranker.load()
    leave, entered = threading.Event(), threading.Event()
    model = reranker._model.model

    def held(sequences, wanted):
        entered.set()
        leave.wait(10)
        return model.forward(sequences, wanted)

    object.__setattr__(reranker._model, "model", type(model)(held, None, model.padding))
    yield reranker, leave, entered
    leave.set()
    encoder.close()


@pytest.fixture
def others():
    with ThreadPoolExecutor() as threads:
        yield threads


def test_pairs_wait_and_are_refused_as_texts_are(busy, others):
    reranker, leave, entered = busy
    long = [(QUERY, "water " * 400)]
    running = others.submit(reranker.score, long)
    assert entered.wait(10)
    waiting = others.submit(reranker.score, long)
    while not reranker._encoder.load_state.waiting["bulk"]:
        time.sleep(0.01)
    assert reranker._encoder.load_state.waiting["bulk"] == reranker._model.pairs.encode(long).total
    with pytest.raises(Overloaded):  # the pair's tokens count, more than the texts'
        reranker.score(long)
    with pytest.raises(Overloaded, match="tokens are waiting"):
        reranker.rank(QUERY, ["water " * 20] * 3, 3)
    time.sleep(0.6)  # the deadline of what waits passes
    leave.set()
    assert len(running.result(10).by_name[CROSS_ENCODER]) == 1
    with pytest.raises(TooLate):
        waiting.result(10)


def test_pairs_of_a_client_that_has_gone_are_dropped(busy, others):
    reranker, leave, entered = busy
    running = others.submit(reranker.score, [(QUERY, "water " * 400)])
    assert entered.wait(10)
    with pytest.raises(Abandoned):
        reranker.score([(QUERY, "cat " * 90)], gone=lambda: True)
    assert reranker._encoder.load_state.waiting["bulk"] == 0
    leave.set()
    running.result(10)


def test_a_question_does_not_wait_for_pairs(busy, others):
    reranker, leave, entered = busy
    running = others.submit(reranker.score, [(QUERY, "water " * 400)])
    assert entered.wait(10)
    assert len(reranker._encoder.encode(["a question"]).dense) == 1  # while the pair is computed
    leave.set()
    running.result(10)


def test_nothing_is_scored_before_it_is_loaded(load_encoder, tiny_folder, tiny_reranker):
    reranker = Reranker(RerankerSettings(tiny_reranker), load_encoder(tiny_folder, engine="torch"))
    with pytest.raises(NotLoaded):
        reranker.score([("a", "b")])
    with pytest.raises(NotLoaded):
        _ = reranker.info


def test_info_tells_what_is_served(reranker, engine):
    info = reranker.info
    assert (info.labels, info.heads, info.max_tokens) == (("LABEL_0",), (), 512)
    assert info.engine == engine["engine"]


def damaged(folder: Path, to: Path, **config) -> Path:
    """A copy with changed settings; its large files are links."""
    shutil.copytree(
        folder,
        to,
        ignore=shutil.ignore_patterns("native", "openvino"),
        copy_function=lambda source, to: Path(to).symlink_to(source),
    )
    content = json.loads((to / "config.json").read_text()) | config
    (to / "config.json").unlink()
    (to / "config.json").write_text(json.dumps(content))
    return to


LABELS = {"id2label": {"0": "no", "1": "perhaps", "2": "yes"}}


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (LABELS, "has 3 labels"),
        ({"id2label": None, "num_labels": 2}, "has 2 labels"),
        ({"architectures": ["XLMRobertaModel"]}, "has no classification head"),
        ({"vocab_size": 90_000}, "it is another model's tokenizer"),
    ],
)
def test_a_folder_that_is_no_reranker_is_refused(tiny_reranker, load, tmp_path, config, sentence):
    folder = damaged(tiny_reranker, tmp_path / "damaged", **config)
    with pytest.raises(ModelError, match=sentence):
        load(folder, engine="native", precision="fp32")


@pytest.mark.parametrize("engine", ["torch", "native", "openvino"])
def test_a_reranker_without_its_head_is_refused(tiny_folder, load, tmp_path, engine):
    folder = damaged(
        tiny_folder,
        tmp_path / "headless",
        architectures=["XLMRobertaForSequenceClassification"],
        num_labels=1,
        id2label={"0": "LABEL_0"},
    )
    with pytest.raises(ModelError, match="has no classification head"):
        load(folder, engine=engine, precision="fp32")


def test_an_encoder_is_no_reranker(tiny_folder, load):
    with pytest.raises(ModelError, match="has no classification head"):
        load(tiny_folder, engine="torch")


def test_a_reranker_is_no_encoder(tiny_reranker):
    encoder = Encoder(EncoderSettings(tiny_reranker))
    with pytest.raises(ModelError, match="EMBED_RERANKER_PATH"):
        encoder.load()


def test_a_missing_folder_is_named(load, tmp_path):
    with pytest.raises(ModelError, match=r"there is no model folder .*/nowhere"):
        load(tmp_path / "nowhere", engine="torch")


def test_pairs_that_cannot_be_cut_to_fit_are_refused_at_the_start(tiny_reranker, load):
    with pytest.raises(ModelError, match="need at least 32"):
        load(tiny_reranker, max_tokens=31, engine="torch")


def test_a_tokenizer_that_frames_no_pairs_is_refused(tiny_reranker, load, tmp_path):
    folder = damaged(tiny_reranker, tmp_path / "frameless")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"]["pair"] = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="does not say how two texts are framed"):
        load(folder, engine="torch")


def test_the_least_limit_is_room_for_any_pair(folder):
    found = pair_tokenizer(folder, 32).encode([("water " * 90, "the water " * 90)])
    assert found.counts == [32]
