"""Promises about vectors, checked on real models against computations that share no code with ours."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from transformers import AutoModel, PreTrainedTokenizerFast

from app.engine.encoder import Encoder, EncoderSettings
from app.engine.errors import NotFinite, NotLoaded, TextTooLong, TooLate

TEXTS = [
    "Hello world!",
    "",
    "什么是机器学习？",
    "machine",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. " * 12,
    "مرحبا بالعالم",
    "🚀 emoji 👩‍👩‍👧‍👦 and ﬁgures ①②③",
    "Machine learning is a field of study in artificial intelligence.",
    "Machine learning is a field of study in artificial intelligence.",
    "今天天气很好",
    " white \t space \n everywhere ",
]


@cache
def transformers_own(folder):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    return tokenizer, AutoModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


@cache
def states(folder, text):
    """The states of one text, computed once for all engines."""
    tokenizer, model = transformers_own(folder)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model(input_ids=ids).last_hidden_state[0].double()


def independent(folder, texts, pooling):
    """One text at a time through transformers: nothing is batched, sorted or padded."""
    rows = []
    for text in texts:
        hidden = states(folder, text)
        vector = hidden.mean(0) if pooling == "mean" else hidden[0]
        rows.append((vector / vector.norm()).numpy())
    return np.array(rows)


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("model", ["tiny", "demo"])
def test_vectors_are_those_of_the_reference(request, engine, model, pooling):
    encoder = request.getfixturevalue(model)
    folder = request.getfixturevalue(f"{model}_folder")
    found = encoder.encode(TEXTS, pooling=pooling)
    expected = independent(folder, TEXTS, pooling)
    assert found.dense.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.dense, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found.dense, expected, atol=1e-5)
    assert cosines(found.dense, expected).min() >= 0.99999


def test_texts_get_vectors_of_their_own(tiny):
    dense = tiny.encode(TEXTS).dense
    similar = dense @ dense.T
    assert similar[7, 8] == pytest.approx(1)  # the same text
    others = [(a, b) for a in range(len(TEXTS)) for b in range(a) if {a, b} != {7, 8}]
    assert max(similar[pair] for pair in others) < 0.999


def test_mean_is_the_default_and_cls_is_something_else(demo):
    default, mean, cls = (demo.encode(TEXTS, pooling=p).dense for p in (None, "mean", "cls"))
    np.testing.assert_array_equal(default, mean)
    assert cosines(mean, cls).max() < 0.999


def test_pooling_is_a_setting(load_encoder, tiny_folder, tiny, engine):
    np.testing.assert_allclose(
        load_encoder(tiny_folder, pooling="cls", **engine).encode(TEXTS).dense,
        tiny.encode(TEXTS, pooling="cls").dense,
        atol=1e-6,
    )


def test_a_text_alone_equals_the_same_text_in_a_mixed_batch(demo):
    together = demo.encode(TEXTS).dense
    for index, text in enumerate(TEXTS):
        alone = demo.encode([text]).dense[0]
        np.testing.assert_allclose(alone, together[index], atol=1e-5)


def test_order_is_kept(demo):
    shuffled = np.random.default_rng(1).permutation(len(TEXTS))
    straight = demo.encode(TEXTS).dense
    mixed = demo.encode([TEXTS[index] for index in shuffled]).dense
    np.testing.assert_allclose(mixed, straight[shuffled], atol=1e-5)


def test_tokens_are_counted_with_specials_after_truncation(demo):
    found = demo.encode(["Hello world!", "", "the " * 600])
    assert found.token_counts == [5, 2, 512]
    assert found.truncated == [2]


def test_no_texts_give_an_empty_array(demo):
    found = demo.encode([])
    assert found.dense.shape == (0, 384)
    assert found.token_counts == []


def test_a_truncated_text_is_the_kept_beginning(demo):
    long, kept = "the " * 600, "the " * 510
    np.testing.assert_allclose(demo.encode([long]).dense, demo.encode([kept]).dense, atol=1e-6)
    with pytest.raises(TextTooLong):
        demo.encode([long], truncate=None)


def test_a_text_truncated_on_the_left_is_the_kept_end(demo):
    long, kept = "river " * 300 + "the " * 510, "the " * 510
    found = demo.encode(["short", long], truncate="left")
    assert found.truncated == [1]
    np.testing.assert_allclose(found.dense, demo.encode(["short", kept]).dense, atol=1e-6)
    scores = demo.score([("short", long)], truncate="left")
    assert scores.cut == 1
    expected = demo.score([("short", kept)]).by_name["dense"]
    np.testing.assert_allclose(scores.by_name["dense"], expected, atol=1e-6)


@pytest.mark.parametrize("tokens", [pytest.param(8191, marks=pytest.mark.slow), 8192, 8193])
def test_the_longest_text(tiny, tiny_folder, tokens):
    """The last position of BGE-M3 is the 8192nd token; a longer text is cut, and none hangs or fails."""
    words = np.array(["the", "a", "is", "in"])
    text = " ".join(np.random.default_rng(2).choice(words, tokens - 2))
    found = tiny.encode(["short", text])
    assert found.token_counts == [3, min(tokens, 8192)]
    assert found.truncated == ([1] if tokens > 8192 else [])
    kept = " ".join(text.split()[:8190])
    assert cosines(found.dense[1:], independent(tiny_folder, [kept], "mean"))[0] >= 0.99999


def test_the_limit_is_a_setting_under_the_checkpoints_own(load_encoder, tiny_folder, demo):
    limited = load_encoder(tiny_folder, max_tokens=16, engine="torch")
    assert limited.encode(["the " * 40]).token_counts == [16]
    assert demo.max_tokens == 512


def test_concurrent_calls_get_their_own_vectors(demo):
    rng = np.random.default_rng(3)
    words = ["river", "机器", "Baum", "cielo", "книга", "music", "天气", "stone", "learning"]
    calls = [
        [" ".join(rng.choice(words, rng.integers(1, 30))) for _ in range(rng.integers(1, 5))]
        for _ in range(16)
    ]
    alone = [demo.encode(texts).dense for texts in calls]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda texts: demo.encode(texts).dense, calls))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_meaning_crosses_languages(demo):
    question, statement, german, weather = demo.encode(
        [
            "什么是机器学习？",
            "Maschinelles Lernen ist ein Teilgebiet der künstlichen Intelligenz.",
            "Was ist maschinelles Lernen?",
            "今天天气很好",
        ]
    ).dense
    assert question @ statement > question @ weather
    assert question @ german > question @ weather + 0.03
    assert statement @ german > statement @ weather + 0.1


def test_a_patient_call_has_no_deadline(load_encoder, tiny_folder, monkeypatch):
    encoder = load_encoder(tiny_folder, engine="torch")
    monkeypatch.setattr(encoder, "settings", replace(encoder.settings, timeout=1e-9))
    texts = ["some words " * 2000]  # long enough that the tokenizer pauses in between
    with pytest.raises(TooLate):
        encoder.encode(texts)
    assert len(encoder.encode(texts, patient=True).dense) == 1


def test_timings_add_up(demo):
    timings = demo.encode(TEXTS).timings
    assert timings.load > 0
    assert timings.tokenize > 0
    assert timings.queue >= 0
    assert timings.forward > timings.tokenize


def test_an_encoder_outside_load_and_close_says_so(demo_folder):
    encoder = Encoder(EncoderSettings(path=demo_folder))
    with pytest.raises(NotLoaded):
        encoder.encode(["a"])
    encoder.close()
    assert not encoder.load_state.ready


def test_closing_ends_the_encoder_and_its_thread(tiny_folder, engine):
    encoder = Encoder(EncoderSettings(path=tiny_folder, **engine))
    before = [thread.name for thread in threading.enumerate()].count("batcher")
    encoder.load()
    assert encoder.load_state.ready
    encoder.close()
    encoder.close()
    assert [thread.name for thread in threading.enumerate()].count("batcher") == before
    with pytest.raises(NotLoaded):
        encoder.encode(["a"])


def test_a_vector_that_is_not_finite_is_an_error(broken_folder, tiny_folder, engine):
    weights = torch.load(tiny_folder / "pytorch_model.bin", weights_only=True)
    weights["embeddings.word_embeddings.weight"][35378] = float("nan")  # "Hello"
    (broken_folder / "pytorch_model.bin").unlink()
    torch.save(weights, broken_folder / "pytorch_model.bin")
    encoder = Encoder(EncoderSettings(path=broken_folder, **engine))
    encoder.load()
    try:
        assert np.isfinite(encoder.encode(["What is this?"]).dense).all()
        with pytest.raises(NotFinite, match="text 1"):
            encoder.encode(["What is this?", "Hello world!"])
    finally:
        encoder.close()


def test_long_texts_among_short_ones_do_not_explode_memory(tiny):
    """Padded together these would be 65 x 8192 tokens: 136 MB of states, and far more for attention."""
    import resource

    tiny.encode(["the " * 8190])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = tiny.encode(["short text"] * 64 + ["the " * 8190])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert found.token_counts[-1] == 8192
    assert grown < 64, f"{grown:.0f} MB more than the long text alone"
