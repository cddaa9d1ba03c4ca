"""Token ids against the published ones of BGE-M3's vocabulary, and truncation."""

import subprocess
import sys

import numpy as np
import pytest

from app.engine.errors import TextTooLong
from app.engine.tokenizer import Tokenizer
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return Tokenizer(tiny_folder / "tokenizer.json", 8192)


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


def test_a_text_over_the_limit_is_refused_where_truncation_is(tokenizer):
    assert tokenizer.encode([words(8190)], truncate=False).counts == [8192]
    with pytest.raises(TextTooLong) as error:
        tokenizer.encode(["a", words(8191)], truncate=False)
    assert (error.value.index, error.value.tokens, error.value.limit) == (1, 8193, 8192)


def test_settings_saved_in_the_file_do_not_matter(tmp_path, tiny_folder):
    import tokenizers

    saved = tokenizers.Tokenizer.from_file(str(tiny_folder / "tokenizer.json"))
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
def test_a_giant_text_is_cut_where_any_other_is(tokenizer, tiny_folder, piece):
    """Its end is not read, and what is kept must not show it."""
    import tokenizers

    giant = piece * (3_000_000 // len(piece))
    plain = tokenizers.Tokenizer.from_file(str(tiny_folder / "tokenizer.json")).encode_batch_fast([giant])
    ids = plain[0].ids
    found = tokenizer.encode([giant])
    cut = len(ids) > 8192
    assert found.truncated == [0] * cut
    assert found.sequences[0].tolist() == ([*ids[:8191], 2] if cut else ids)


def test_a_giant_text_costs_little_memory(tiny_folder):
    """In a process of its own, as its peak is what counts."""
    code = (
        "import resource, sys; from pathlib import Path; from app.engine.tokenizer import Tokenizer\n"
        "tokenizer, text = Tokenizer(Path(sys.argv[1]), 8192), 'the ' * 10_000_000\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak(); tokenizer.encode([text]); print(peak() - before)"
    )
    run = [sys.executable, "-c", code, str(tiny_folder / "tokenizer.json")]
    grown = int(subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    assert grown < 200, f"{grown} MiB for 40 MB of text"
