"""Token ids compared with published ones of BGE-M3's vocabulary, and truncation."""

import json
import random
import subprocess
import sys
import threading
import time
import unicodedata

import numpy as np
import pytest
import tokenizers

from app.engine.errors import TextTooLong, TooMuchOutput
from app.engine.tokenizer import Tokenizer
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def tokenizer(demo_folder):
    return Tokenizer(demo_folder / "tokenizer.json", 8192)


@pytest.fixture(scope="module")
def plain(demo_folder):
    """The library's own tokenizer, without our code."""
    return tokenizers.Tokenizer.from_file(str(demo_folder / "tokenizer.json"))


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world!", [0, 35378, 8999, 38, 2]),
        ("", [0, 2]),
        (" ", [0, 2]),
        ("What is the capital of France?", [0, 4865, 83, 70, 10323, 111, 9942, 32, 2]),
        (
            "<s> </s> <pad> <unk> <mask> fake special tokens",
            [0, 0, 2, 1, 3, 250001, 106287, 5361, 47, 84694, 2],
        ),
        (
            "这是一个文本向量化的测试句子",
            [0, 6, 100013, 189061, 2110, 3272, 41904, 49125, 27683, 1344, 2],
        ),
    ],
)
def test_ids_are_those_of_the_reference(tokenizer, text, ids):
    assert tokenizer.encode([text]).sequences[0].tolist() == ids


def words(count: int) -> str:
    return " ".join(["the"] * count)  # one token each


@pytest.mark.parametrize(("tokens", "kept"), [(8191, 8191), (8192, 8192), (8193, 8192), (20000, 8192)])
def test_a_text_over_the_limit_is_cut_at_its_end(tokenizer, tokens, kept):
    found = tokenizer.encode(["a", words(tokens - 2)])
    assert found.counts == [3, kept]
    assert found.truncated == ([1] if tokens > 8192 else [])
    ids = found.sequences[1]
    assert ids[0] == 0
    assert ids[-1] == 2
    assert np.unique(ids[1:-1]).size == 1


def test_a_text_over_the_limit_is_cut_at_its_beginning_where_that_is_asked(tokenizer):
    long = [f"{words(tokens - 5)} capital of France" for tokens in (8192, 8193, 20000)]
    found = tokenizer.encode(["a", *long, "Hello world!"], truncate="left")
    assert found.truncated == [2, 3]
    short, *kept, last = (ids.tolist() for ids in found.sequences)
    assert kept == 3 * [[0, *[70] * 8187, 10323, 111, 9942, 2]]
    assert [short, last] == [ids.tolist() for ids in tokenizer.encode(["a", "Hello world!"]).sequences]


PASSAGES = json.loads((ROOT / "tests" / "passages.json").read_text())["answered"]
SENTENCES = {
    "Latin and Han": [sentence + " " for pair in PASSAGES for sentence in pair],
    "a single word": [sentence for pair in PASSAGES for sentence in pair if "，" in sentence],
    "Arabic": ["الملح يأتي من الصخور، ", "تحمله الأنهار إلى البحر. ", "لماذا ماء البحر مالح؟ "],
    "Devanagari": ["समुद्र का पानी खारा क्यों होता है? ", "नदियाँ चट्टानों से खनिज लाती हैं। "],
    "Thai": ["ทำไมน้ำทะเลจึงเค็ม", "แม่น้ำพัดพาแร่ธาตุจากหินลงสู่ทะเล", "ในฤดูหนาวกลางวันสั้น"],
    "marks apart": [
        unicodedata.normalize("NFD", "Vì sao nước biển mặn? "),
        "Rivie\u0300re, e\u0301te\u0301. ",
    ],
    "ligatures": ["\ufdfa ", "ﬁgures ①②③ "],
}


@pytest.mark.parametrize("script", SENTENCES)
def test_a_text_cut_at_its_beginning_ends_in_the_tokens_of_the_whole(tokenizer, monkeypatch, script):
    text = "".join(random.Random(1).choices(SENTENCES[script], k=20_000))[-200_000:]
    whole = tokenizer._tokenizer.encode_batch_fast([text])[0].ids
    assert len(whole) > 2 * 8192
    for limit in (16, 512, 8192):
        monkeypatch.setattr(tokenizer, "max_tokens", limit)
        found = tokenizer.encode([text], truncate="left")
        assert found.truncated == [0]
        assert found.sequences[0].tolist() == [0, *whole[-(limit - 1) :]]


def test_of_a_text_cut_at_its_beginning_the_rest_is_not_tokenised(tokenizer, monkeypatch):
    sizes, pauses, step = [], [], tokenizer._step

    def measured(work, argument, pause, before):
        sizes.append(len("".join(argument)))
        return step(work, argument, pause, before)

    monkeypatch.setattr(tokenizer, "_step", measured)
    text = f"{words(250_000)} capital of France"  # a million characters
    ids = tokenizer.encode([text], "left", pauses.append).sequences[0]
    assert ids[-4:].tolist() == [10323, 111, 9942, 2]
    assert sum(sizes) < 300_000
    assert max(sizes) < 100_000
    assert len(pauses) >= len(sizes) > 2


def test_a_text_over_the_limit_is_refused_where_truncation_is(tokenizer):
    assert tokenizer.encode([words(8190)], truncate=None).counts == [8192]
    with pytest.raises(TextTooLong) as error:
        tokenizer.encode(["a", words(8191)], truncate=None)
    assert (error.value.index, error.value.tokens, error.value.limit) == (1, 8193, 8192)


def test_settings_saved_in_the_file_do_not_matter(tmp_path, small_tokenizer):
    saved = tokenizers.Tokenizer.from_file(str(small_tokenizer))
    saved.enable_truncation(4)
    saved.enable_padding(length=32)
    saved.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer(tmp_path / "tokenizer.json", 8192).encode([words(10)]).counts == [12]


@pytest.mark.parametrize(
    "piece",
    [
        "Ein langer Satz, the same in English. ",
        "这是一个文本向量化的测试句子",
        "naïve\n\n\té ",
        "a" + 500 * " ",
    ],
)
def test_a_giant_text_is_cut_where_any_other_is(tokenizer, plain, piece):
    """Its end is not tokenised, and the tokens that are kept must not depend on that."""
    giant = piece * (600_000 // len(piece))
    ids = plain.encode_batch_fast([giant])[0].ids
    found = tokenizer.encode([giant])
    cut = len(ids) > 8192
    assert found.truncated == [0] * cut
    assert found.sequences[0].tolist() == ([*ids[:8191], 2] if cut else ids)


GROWS = "\ufdfa"  # a word of 18 characters, four tokens, under NFKC


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("'the ' * 10_000_000", marks=pytest.mark.slow),
        f"{GROWS!r} * 1_000_000",
        pytest.param("'\u0301' * 3_000_000", marks=pytest.mark.slow),
    ],
)
def test_a_giant_text_costs_little(demo_folder, text):
    """Each text has its own process, as the peak memory counts."""
    code = f"""
import os, resource, sys
from pathlib import Path
from app.engine.errors import TextTooLong
from app.engine.tokenizer import Tokenizer
tokenizer, text, steps = Tokenizer(Path(sys.argv[1]), 8192), {text}, []
for truncate in ("right", "left", None):
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
        continue
    before = resource.getrusage(resource.RUSAGE_SELF)
    try:
        assert tokenizer.encode([text], truncate, steps.append).truncated
    except TextTooLong:
        assert truncate is None
    after = resource.getrusage(resource.RUSAGE_SELF)
    mib, seconds = (after.ru_maxrss - before.ru_maxrss) // 1024, after.ru_utime - before.ru_utime
    print(truncate, mib, seconds, len(steps), flush=True)
    break
"""
    run = [sys.executable, "-c", code, str(demo_folder / "tokenizer.json")]
    done = subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True)
    measured = [line.split() for line in done.stdout.splitlines()]
    assert [truncate for truncate, *_ in measured] == ["right", "left", "None"]
    for truncate, *numbers in measured:
        mib, seconds, steps = map(float, numbers)
        print(f"{truncate}: {mib:.0f} MiB, {seconds:.2f} s of processor, {steps:.0f} steps")
        assert mib < 150
        assert seconds < 2  # for a million words that grow, without pieces, it takes over ten
        assert steps > 1


def test_one_large_call_at_a_time_is_in_a_step(tokenizer):
    """A waiting call checks for its client meanwhile."""
    looks, inside = [], threading.Event()
    holding = tokenizer._turn.taken(lambda: None)
    with holding:
        waiting = threading.Thread(
            target=lambda: (tokenizer.encode([words(2000)], pause=looks.append), inside.set()), daemon=True
        )
        waiting.start()
        time.sleep(0.5)
        assert len(looks) > 2
        assert not inside.is_set()
        with pytest.raises(KeyError):
            tokenizer.encode([words(2000)], pause=lambda _: {}["the caller has gone"])
    assert inside.wait(10)


def test_what_is_tokenised_already_is_told(tokenizer):
    """Before each long text, and now and then before a short one."""
    told = []
    tokenizer.encode([words(10), words(2000), "a", *[words(98)] * 50], pause=told.append)
    assert sorted(set(told)) == [12, 3017, 4117, 5217, 6317]


def test_tokens_are_counted_before_they_are_made(tokenizer):
    assert [len(tokens) for tokens in tokenizer.tokens([words(10), words(3)], True, 17)] == [12, 5]
    with pytest.raises(TooMuchOutput, match="too many tokens, the limit is 16"):
        tokenizer.tokens([words(10), words(3)], True, 16)
    start = time.perf_counter()
    with pytest.raises(TooMuchOutput):
        tokenizer.tokens([500_000 * "a "], True, 1000)
    assert time.perf_counter() - start < 5  # in one piece it takes half a minute
