"""Cutting texts into passages, with plain and late pooling: real models against a few lines of torch."""

import random
from itertools import pairwise

import numpy as np
import pytest
import torch

import app.engine.encoder
import app.engine.passages
from app.engine.borders import Level
from app.engine.embeddings import Chunking, Span
from app.engine.encoder import Encoder, EncoderSettings
from app.engine.errors import LateNeedsMean, NotFinite, TooMuchOutput
from app.engine.passages import PIECE_CHARACTERS, _locate, _pieces, cut_tokens, windows
from tests.conftest import assert_alike
from tests.test_encoder import transformers_own

ALL = ("dense", "sparse", "colbert")
ENGLISH = "The quick brown fox jumps over the lazy dog. It barks, and runs away! Was that wise? "
CHINESE = "今天天气很好。我们去公园玩，看到了很多花。你喜欢春天吗？"
THAI = "ภาษาไทยเขียนติดกันโดยไม่มีช่องว่างระหว่างคำ และใช้ช่องว่างแทนจุด "
ARABIC = "الطقس جميل اليوم. هل نذهب إلى الحديقة؟ نعم، لنذهب! "
BOOK = "\n\n".join(
    f"# Chapter {number}\n\n" + ENGLISH * (number % 5 + 1) + "\n\n" + CHINESE * (number % 7) + ARABIC
    for number in range(1, 40)
)
HOSTILE = {
    "nothing": "",
    "spaces": " \t\n\n ",
    "one long word": "a" * 30_000,
    "no space at all": CHINESE * 900,
    "thai": THAI * 300,
    "ligatures of many letters": "ﷺ" * 500,
    "marks": "e\u0301\u0302\u0303" * 3000,
    "families": "👩‍👩‍👧‍👦" * 800,
    "nothing to see": "\u200b" * 400,
    "windows line ends": ENGLISH.replace(". ", ".\r\n\r\n") * 200,
    "full stops": "." * 20_000,
    "a space at the end of a piece": "x" * (PIECE_CHARACTERS - 1) + " " + "y" * 9000,
}


@pytest.fixture(scope="module")
def small(tiny_folder):
    """A model with windows of 62 tokens, so that short texts have several."""
    encoder = Encoder(EncoderSettings(tiny_folder, max_tokens=64, precision="fp32", threads=2))
    encoder.load()
    yield encoder
    encoder.close()


def passages_of(text, found):
    return [text[passage.start : passage.stop] for passage in found.passages]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("chunk", [Chunking(), Chunking(48, 24), Chunking(32, 0)], ids=str)
def test_no_character_is_lost_and_none_is_cut(small, name, chunk):
    text = HOSTILE[name]
    found = small.encode([text], outputs=(), chunk=chunk)
    assert found.passages, "every text has a passage"
    covered = np.zeros(len(text) + 1, bool)
    before = 0
    for passage in found.passages:
        assert before <= passage.start <= passage.stop
        before = passage.start
        covered[passage.start : passage.stop] = True
        assert passage.tokens <= min(chunk.tokens, 62)
        assert text[passage.start : passage.stop].strip() == text[passage.start : passage.stop]
    missed = [char for char, seen in zip(text, covered, strict=False) if not seen and not char.isspace()]
    assert not missed
    if not chunk.overlap:  # each character is in one passage, so no character was split
        assert sum(len(part) for part in passages_of(text, found)) == covered.sum()


def test_passages_are_those_of_the_text_sent_alone(tiny):
    """If a space precedes a passage, its vectors are, up to rounding, those of its text."""
    text = ENGLISH * 30 + "\n\n" + ARABIC * 20
    found = tiny.encode([text, "short"], outputs=ALL, chunk=Chunking(64, 16))
    assert len(found.passages) > 10
    texts = [(text, "short")[passage.text][passage.start : passage.stop] for passage in found.passages]
    alone = tiny.encode(texts, outputs=ALL)
    assert found.token_counts == alone.token_counts == [p.tokens + 2 for p in found.passages]
    assert_alike(found, alone)


def late_in_torch(folder, text, passages, limit):
    """Günther et al. 2024: one pass over the text, then the mean of each passage's tokens."""
    tokenizer, model = transformers_own(folder)
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    first, last = tokenizer.convert_tokens_to_ids(["<s>", "</s>"])
    assert len(ids) <= limit
    with torch.no_grad():
        states = model(torch.tensor([[first, *ids, last]])).last_hidden_state[0, 1:-1].double().numpy()
    rows = []
    for passage in passages:
        inside = [passage.start <= start and stop <= passage.stop for start, stop in offsets]
        mean = states[inside].mean(0)
        rows.append(mean / np.linalg.norm(mean))
    return np.array(rows)


def test_late_chunking_is_the_mean_of_states_in_the_whole_text(tiny, tiny_folder):
    text = ENGLISH * 12 + "\n\n" + CHINESE * 6
    found = tiny.encode([text], chunk=Chunking(64, 16, late=True))
    assert len(found.passages) > 5
    assert len(found.token_counts) == 1, "one pass"
    expected = late_in_torch(tiny_folder, text, found.passages, 8190)
    np.testing.assert_allclose(found.dense, expected, atol=1e-5)
    plain = tiny.encode([text], chunk=Chunking(64, 16))
    assert found.passages == plain.passages
    assert np.abs(found.dense - plain.dense).max() > 0.01, "the text around a passage counts"


def test_late_sparse_and_multi_vectors_are_those_of_the_same_pass(tiny):
    text = ENGLISH * 12
    found = tiny.encode([text], outputs=ALL, chunk=Chunking(64, 16, late=True))
    [whole] = tiny.encode([text], outputs=("colbert",)).multi_vector
    first, second = found.multi_vector[0], found.multi_vector[-1]
    np.testing.assert_allclose(first, whole[: len(first)], atol=1e-4)  # it lacks the first special token
    np.testing.assert_allclose(second, whole[-1 - len(second) : -1], atol=1e-4)
    assert [len(rows) for rows in found.multi_vector] == [passage.tokens for passage in found.passages]
    assert len(found.sparse) == len(found.passages) == len(found.dense)
    [(ids, weights)] = tiny.encode([text], outputs=("sparse",)).sparse
    whole_weights = dict(zip(ids, weights, strict=True))
    for ids, weights in found.sparse:
        assert all(weight <= whole_weights[token] + 1e-4 for token, weight in zip(ids, weights, strict=True))


def test_a_document_longer_than_the_model_reads_is_read_in_windows(small):
    text = ENGLISH * 12
    found = small.encode([text, "short"], outputs=ALL, chunk=Chunking(40, 0, late=True))
    tokens = sum(passage.tokens for passage in found.passages)
    assert max(found.token_counts) <= 64
    assert len(found.token_counts) > 4
    assert [len(rows) for rows in found.multi_vector] == [passage.tokens for passage in found.passages]
    assert sum(count - 2 for count in found.token_counts) <= 1.2 * tokens
    np.testing.assert_allclose(np.linalg.norm(found.dense, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("most", [62, 510, 8190])
def test_windows_share_tokens_and_every_token_counts_once(most):
    for tokens in (0, 1, most, most + 1, 2 * most, 10 * most + 7):
        found = windows(tokens, most)
        assert [span.start for _, span in found][1:] == [span.stop for _, span in found][:-1]
        assert (found[0][1].start, found[-1][1].stop) == (0, tokens)
        for number, (read, counts) in enumerate(found):
            assert read.stop - read.start <= most
            assert read.start <= counts.start
            assert counts.stop <= read.stop
            if number:  # at least half of the overlap on either side
                assert counts.start - read.start >= most // 16 // 2
        assert sum(read.stop - read.start for read, _ in found) <= max(tokens * 1.07 + 1, most)


def test_a_passage_is_looked_for_in_few_windows(small, monkeypatch):
    """With all of them, a text of a megabyte would take minutes."""

    class Counted(list):
        looks = 0

        def __iter__(self):
            for each in super().__iter__():
                Counted.looks += 1
                yield each

        def __getitem__(self, index):
            Counted.looks += 1
            return super().__getitem__(index)

    monkeypatch.setattr(app.engine.passages, "windows", lambda *asked: Counted(windows(*asked)))
    found = small.encode([ENGLISH * 300], outputs=(), chunk=Chunking(32, 16, late=True))
    assert len(found.passages) > 300
    assert len(found.token_counts) > 100
    assert Counted.looks < 5 * len(found.passages)


def test_a_server_cuts_no_more_tokens_than_it_has_memory_for(tiny_folder, monkeypatch):
    monkeypatch.setattr(app.engine.encoder, "MOST_TOKENS", 1000)
    for limit in (4096, None):
        encoder = Encoder(EncoderSettings(tiny_folder, precision="fp32", max_waiting=limit))
        encoder.load()
        for chunk in (Chunking(32, 16), Chunking(32, 16, late=True), Chunking(None, 0, late=True)):
            assert encoder.encode([ENGLISH], outputs=(), chunk=chunk).passages
            if limit is None:  # as for a corpus on one's own machine
                assert encoder.encode(2 * [ENGLISH * 30], outputs=(), chunk=chunk).passages
                continue
            with pytest.raises(TooMuchOutput, match="too many tokens, the limit is 1000"):
                encoder.encode(2 * [ENGLISH * 30], outputs=(), chunk=chunk)
        encoder.close()


def test_texts_may_be_passages_of_one_document_already(tiny, tiny_folder):
    texts = ["Berlin is the capital of Germany.", "The city has 3.8 million people.", "It lies on the Spree."]
    found = tiny.encode(texts, chunk=Chunking(None, 0, late=True))
    text = " ".join(texts)
    starts = [text.index(part) for part in texts]
    passages = [
        type(passage)(0, start, start + len(part), passage.tokens)
        for passage, start, part in zip(found.passages, starts, texts, strict=True)
    ]
    np.testing.assert_allclose(found.dense, late_in_torch(tiny_folder, text, passages, 8190), atol=1e-5)
    assert [(passage.text, passage.start, passage.stop) for passage in found.passages] == [
        (index, 0, len(part)) for index, part in enumerate(texts)
    ]


def test_nothing_to_embed_is_a_passage_too(tiny):
    for chunk in (Chunking(), Chunking(late=True), Chunking(None, 0, late=True)):
        found = tiny.encode(["", "word"], outputs=ALL, chunk=chunk)
        assert [passage.tokens for passage in found.passages] == [0, 1]
        assert np.isfinite(found.dense).all()
        assert len(found.dense) == len(found.sparse) == len(found.multi_vector) == 2
        assert len(tiny.encode([], outputs=ALL, chunk=chunk).dense) == 0


def test_late_chunking_needs_mean_pooling(tiny):
    with pytest.raises(LateNeedsMean, match="mean pooling"):
        tiny.encode(["text"], pooling="cls", chunk=Chunking(late=True))


def test_what_the_answer_will_hold_is_told_before_it_is_computed(tiny):
    told = []
    for late in (False, True):
        found = tiny.encode(
            [ENGLISH * 12, "short"], outputs=ALL, chunk=Chunking(64, 16, late), expect=told.append
        )
        numbers = found.dense.size + sum(rows.size for rows in found.multi_vector)
        numbers += 2 * sum(passage.tokens + 2 for passage in found.passages)
        assert numbers - 2 * len(found.passages) <= told[-1] <= numbers


def test_a_vector_that_is_not_finite_is_told_by_its_text(tiny, monkeypatch):
    def broken(*call, **options):
        raise NotFinite([3])

    monkeypatch.setattr(tiny.batcher, "compute", broken)
    for chunk in (Chunking(32, 0), Chunking(32, 0, late=True)):
        with pytest.raises(NotFinite) as caught:
            tiny.encode(["short", "two", "three", ENGLISH * 12], chunk=chunk)
        assert caught.value.indices == [3]


def test_passages_end_at_the_highest_border_of_the_second_half():
    levels = np.zeros(200, np.int8)
    levels[[20, 70, 90]] = 3  # sentences
    levels[60] = 4  # a paragraph
    assert cut_tokens(levels, 100, 0)[0] == Span(0, 60)
    levels[60] = 0
    assert cut_tokens(levels, 100, 0)[0] == Span(0, 90)
    assert cut_tokens(levels, 100, 30)[1].start == 70
    assert cut_tokens(levels, 100, 15)[1].start == 75  # no border there, so the largest overlap allowed


def test_the_last_passage_is_not_a_crumb():
    spans = cut_tokens(np.zeros(103, np.int8), 100, 0)
    assert [span.stop - span.start for span in spans] == [78, 25]


def test_any_levels_give_passages_within_bounds():
    draw = random.Random(7)
    for _ in range(300):
        count, most = draw.randrange(1, 900), draw.randrange(32, 200)
        overlap = draw.randrange(0, most // 2 + 1)
        levels = np.array([draw.choice([-1, 0, 0, 0, 1, 1, 3, 4]) for _ in range(count)], np.int8)
        spans = cut_tokens(levels, most, overlap)
        assert (spans[0].start, spans[-1].stop) == (0, count)
        for before, after in pairwise(spans):
            assert before.stop - overlap <= after.start <= before.stop
            assert before.start < after.start
            assert before.stop < after.stop
        assert all(span.stop - span.start <= most for span in spans)


def test_a_heading_stays_with_its_text_and_sentences_are_whole(tiny):
    found = tiny.encode([BOOK], outputs=(), chunk=Chunking(128, 0))
    texts = passages_of(BOOK, found)
    assert len(texts) > 20
    whole = [text for text in texts if text[-1] in ".!?。？؟"]
    assert len(whole) >= 0.95 * len(texts), texts
    assert not [text for text in texts if text.splitlines()[-1].startswith("# ")]


@pytest.mark.parametrize("late", [False, True])
def test_multi_vectors_of_passages_can_be_pooled(tiny, late):
    texts, chunk = [ENGLISH * 12, "short"], Chunking(64, 16, late)
    told = []
    found = tiny.encode(texts, outputs=ALL, chunk=chunk, colbert_pool=4, expect=told.append)
    whole = tiny.encode(texts, outputs=ALL, chunk=chunk)
    assert found.passages == whole.passages
    np.testing.assert_allclose(found.dense, whole.dense, atol=1e-5)
    for rows, before in zip(found.multi_vector, whole.multi_vector, strict=True):
        assert len(rows) == max(1, len(before) // 4)
    assert sum(rows.size for rows in found.multi_vector) < told[0]


def test_a_piece_may_begin_a_section(tiny):
    text = "x " * 3000 + "\n\n# Heading\n" + "y " * 3000
    second = [start for start, *_ in _pieces(text)][1]
    assert text[second:].startswith("# Heading")
    located = _locate(tiny._loaded().tokenizer, text, None, 0, None)
    assert located.levels[np.searchsorted(located.starts, second)] == Level.SECTION


@pytest.mark.parametrize("blank", ["\n\n", "\r\n\r\n"])
def test_a_piece_ends_at_a_blank_line(blank):
    text = "x y\n" * 1500 + blank + "z " * 3000
    _, (start, _, level) = _pieces(text)
    assert text[start] == "z"
    assert level == Level.PARAGRAPH


def test_a_piece_ends_behind_the_mark_that_closes_its_sentence():
    text = "「" + "字" * 5000 + "。」" + "字" * 5000
    _, (start, _, level) = _pieces(text)
    assert text[start - 1] == "」"
    assert level == Level.SENTENCE


def test_marks_that_close_to_the_end_of_a_text_are_no_end_of_a_piece_beyond_its_size():
    for closing in (2, 9000):
        text = "字" * (PIECE_CHARACTERS - 2) + "。" + "」" * closing
        pieces = list(_pieces(text))
        assert (pieces[0][0], pieces[-1][1]) == (0, len(text))
        assert all(stop - start <= PIECE_CHARACTERS for start, stop, _ in pieces)
