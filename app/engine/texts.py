"""Our own passages in many languages: half of them calibrate 8-bit weights, half measure the result."""

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
# A cross-encoder gets this many queries, which are beginnings of texts, with this many passages each: first
# the text itself, then others.
QUERIES, PASSAGES = 12, 8
QUERY_CHARACTERS = 60
STEP = 13  # distance between a query's passages, so that queries share few of them


def calibration_sequences(checkpoint: Checkpoint, held_out: bool) -> list[IntArray]:
    """Token ids of the odd lines, which calibrate, or of the even lines, which are held out.

    For a cross-encoder these are pairs, PASSAGES of each query one after the other.
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
