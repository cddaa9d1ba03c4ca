"""Passages of our own in many languages: half to calibrate 8-bit weights with, half to measure them by."""

from pathlib import Path

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import IntArray
from app.engine.pairs import PairTokenizer
from app.engine.tokenizer import Tokenizer

TEXTS = Path(__file__).with_name("calibration.txt")
# A letter for each held-out text: those with the same letter are about the same thing, most of them as
# translations of one another.
SUBJECTS = (
    "aaabccddccceeeebadffffgghhhihhjjjjbbbkkkkklllliimmmmmnnnngooooppppqqqqrrrrssssttttuuuuvvvwxxxxyyyyyy"
)
LONGEST = 512  # tokens
# A cross-encoder gets so many queries, which are beginnings of texts, with so many passages each: the text
# itself first, and others.
QUERIES, PASSAGES = 12, 8
QUERY_CHARACTERS = 60
STEP = 13  # from one passage of a query to its next, so that queries share few


def calibration_sequences(checkpoint: Checkpoint, held_out: bool) -> list[IntArray]:
    """Token ids of the odd lines, which calibrate, or of the even ones, which are held out.

    Of pairs for a cross-encoder, PASSAGES of each query one after the other.
    """
    texts = TEXTS.read_text(encoding="utf-8").splitlines()[int(held_out) :: 2]
    longest = min(LONGEST, checkpoint.max_tokens)
    tokenizer = Tokenizer(checkpoint.tokenizer, longest)
    if not checkpoint.labels:
        return tokenizer.encode(texts).sequences
    return PairTokenizer(checkpoint, tokenizer, longest).encode(_pairs(texts)).sequences


def _pairs(texts: list[str]) -> list[tuple[str, str]]:
    between = len(texts) // QUERIES
    return [
        (texts[query][:QUERY_CHARACTERS], texts[(query + STEP * passage) % len(texts)])
        for query in range(0, between * QUERIES, between)
        for passage in range(PASSAGES)
    ]
