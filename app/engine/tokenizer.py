"""Texts to token ids, with the truncation reported."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers

from app.engine.embeddings import IntArray, Token
from app.engine.errors import ModelError, TextTooLong

# First, padding, last and unknown token, in the spellings of the two families of tokenizers.
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "[CLS]", "[PAD]", "[SEP]", "[UNK]")

# Of a longer text the beginning is tokenised first, and most often that is all that is kept.
HEAD_CHARACTERS = 1 << 16


@dataclass(frozen=True)
class Tokens:
    """Token ids of n texts, special tokens included."""

    sequences: list[IntArray]  # n arrays (t,)
    truncated: list[int]  # indices of the texts that were cut

    @property
    def counts(self) -> list[int]:
        return [len(sequence) for sequence in self.sequences]


class Tokenizer:
    """The checkpoint's own `tokenizer.json`, run by the `tokenizers` library; thread-safe."""

    def __init__(self, file: Path, max_tokens: int) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"{file} cannot be read as a tokenizer: {error}") from error
        # A tokenizer.json may carry the settings of whoever saved it.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        frame = self._tokenizer.encode("").ids
        if len(frame) != 2:
            raise ModelError(f"{file} does not frame a text with one first and one last token")
        self._last = frame[-1]
        self._one_at_a_time = threading.Lock()
        self.max_tokens = max_tokens
        known = [self._tokenizer.token_to_id(token) for token in SPECIAL]
        self.special_ids = np.array([token for token in known if token is not None], np.int64)

    @property
    def vocabulary(self) -> int:
        """Number of token ids, added tokens included."""
        return int(self._tokenizer.get_vocab_size())

    def encode(
        self, texts: list[str], truncate: bool = True, pause: Callable[[], None] | None = None
    ) -> Tokens:
        """Tokenise; a text over `max_tokens` keeps its beginning and its last special token.

        With `pause` one call at a time has a text tokenised, and calls it before each; it may raise.
        Raises TextTooLong for the first text that is too long where `truncate` is false.
        """
        limit = self.max_tokens
        sequences: list[IntArray] = []
        truncated: list[int] = []
        for index, text in enumerate(texts):
            ids = self._paused(text, truncate, pause) if pause else self._ids(text, truncate)
            if len(ids) > limit:
                if not truncate:
                    raise TextTooLong(index, len(ids), limit)
                ids = [*ids[: limit - 1], self._last]
                truncated.append(index)
            sequences.append(np.asarray(ids, dtype=np.int64))
        return Tokens(sequences, truncated)

    def _paused(self, text: str, truncate: bool, pause: Callable[[], None]) -> list[int]:
        pause()
        with self._one_at_a_time:
            return self._ids(text, truncate)

    def _ids(self, text: str, truncate: bool) -> list[int]:
        """Of a text; where it may be truncated, of its beginning at least.

        That has twice the tokens that are kept, so that where it ends changes none of them.
        """
        end = HEAD_CHARACTERS if truncate else len(text)
        while True:
            # Of several texts the library keeps all at once, and a token takes a hundred times its id.
            ids: list[int] = self._tokenizer.encode_batch_fast([text[:end]])[0].ids
            if end >= len(text) or len(ids) > 2 * self.max_tokens:
                return ids
            end *= 2

    def strings(self, ids: Iterable[int]) -> list[str]:
        """Each token as it reads in a text, without the mark of a word's beginning."""
        return [self._tokenizer.decode([int(token)], skip_special_tokens=False) for token in ids]

    def tokens(self, texts: list[str], special: bool = True) -> list[list[Token]]:
        """Every token of each text and where it stands, none cut off; `special`: the frame too."""
        found = []
        for text, encoding in zip(
            texts, self._tokenizer.encode_batch(texts, add_special_tokens=special), strict=True
        ):
            rows = zip(
                encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True
            )
            found.append(
                [
                    Token(token, name, True, None, None)
                    if frame
                    else Token(token, text[start:stop], False, start, stop)
                    for token, name, frame, (start, stop) in rows
                ]
            )
        return found
