"""Texts of known token length, in every script of the tokenizer's vocabulary."""

import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

# How many words a text of each profile has; it has two more tokens.
PROFILES: dict[str, Callable[[random.Random], int]] = {
    "short": lambda chance: chance.randint(4, 22),
    "mixed": lambda chance: min(510, max(6, round(chance.lognormvariate(4.16, 0.8)))),  # median 64
    "passage": lambda chance: chance.randint(80, 120),
    "chunk": lambda chance: chance.randint(400, 505),
    "long": lambda chance: chance.randint(1000, 4000),
    "document": lambda chance: chance.randint(1900, 2100),
    "full": lambda chance: 8190,
}

FREQUENT = 500  # the first pieces of the vocabulary are special tokens, punctuation, single letters
CANDIDATES = 30_000  # of a quarter of a million pieces, enough for any benchmark


class Corpus:
    """Random texts of words that are one token each."""

    def __init__(self, tokenizer_file: Path, limit: int) -> None:
        """`limit` is the number of tokens after which the model cuts a text."""
        self.limit = limit
        self._words = _words(tokenizer_file)

    def texts(self, profile: str, count: int, seed: int) -> list[str]:
        """`count` texts, always the same for a profile and seed; a smaller count gives the first of them."""
        chance = random.Random(f"{profile} {seed}")
        length = PROFILES[profile]
        return [" ".join(chance.choices(self._words, k=length(chance))) for _ in range(count)]

    def tokens(self, text: str) -> int:
        """How many tokens the model computes for a text of this corpus."""
        return min(text.count(" ") + 3, self.limit)


def _words(tokenizer_file: Path) -> list[str]:
    vocabulary = json.loads(tokenizer_file.read_text(encoding="utf-8"))["model"]["vocab"]
    starts = [piece[1:] for piece, _ in vocabulary[FREQUENT:] if piece.startswith("▁")]
    words = [word for word in starts if len(word) > 1 and _is_word(word)]
    words = random.Random(0).sample(words, min(CANDIDATES, len(words)))
    # Tokenising a piece's own letters does not always give that piece.
    encodings = Tokenizer.from_file(str(tokenizer_file)).encode_batch_fast(words)
    return [word for word, encoding in zip(words, encodings, strict=True) if len(encoding.ids) == 3]


def _is_word(text: str) -> bool:
    return all(unicodedata.category(letter)[0] in "LM" for letter in text)
