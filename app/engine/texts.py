"""Our own passages in many languages: one file calibrates 8-bit weights, the other measures the result."""

from pathlib import Path

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import IntArray
from app.engine.pairs import PairTokenizer
from app.engine.tokenizer import Tokenizer

# With passages in thirty languages instead of a hundred, rounding the weights cost a third more in languages
# that were among neither.
CALIBRATION, HELD_OUT = (Path(__file__).with_name(f"{name}.txt") for name in ("calibration", "held_out"))
# A letter for each held-out text: those with the same letter are about the same thing, most of them as
# translations of one another.
SUBJECTS = (
    "aaabccddccceeeebadffffgghhhihhjjjjbbbkkkkklllliimmmmmnnnngooooppppqqqqrrrrssssttttuuuuvvvwxxxxyyyyyy"
)
LONGEST = 512  # tokens
# A cross-encoder gets queries, which are beginnings of texts, with this many passages each: first the text
# itself, then others.
PASSAGES = 8
QUERY_CHARACTERS = 60
STEP = 13  # distance between a query's passages, so that queries share few of them


def calibration_sequences(checkpoint: Checkpoint, held_out: bool) -> list[IntArray]:
    """Token ids of the passages that calibrate, or of those that are held out.

    For a cross-encoder these are pairs, PASSAGES of each query one after the other.
    """
    texts = (HELD_OUT if held_out else CALIBRATION).read_text(encoding="utf-8").splitlines()
    longest = min(LONGEST, checkpoint.max_tokens)
    tokenizer = Tokenizer(checkpoint.tokenizer, longest)
    if not checkpoint.labels:
        return tokenizer.encode(texts).sequences
    return PairTokenizer(checkpoint, tokenizer, longest).encode(_pairs(texts)).sequences


def _pairs(texts: list[str]) -> list[tuple[str, str]]:
    return [
        (texts[query][:QUERY_CHARACTERS], texts[(query + STEP * passage) % len(texts)])
        for query in range(0, len(texts) - PASSAGES + 1, PASSAGES)
        for passage in range(PASSAGES)
    ]
