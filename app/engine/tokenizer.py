"""Texts to token ids, with the truncation reported."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers

from app.engine.embeddings import IntArray, Token
from app.engine.errors import ModelError, TextTooLong

# First, padding, last and unknown token, in the spellings of the two families of tokenizers.
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "[CLS]", "[PAD]", "[SEP]", "[UNK]")


# Tokenised at a time: what the library keeps of a token is a hundred times its id.
CHUNK_CHARACTERS = 1 << 19


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
        self.max_tokens = max_tokens
        known = [self._tokenizer.token_to_id(token) for token in SPECIAL]
        self.special_ids = np.array([token for token in known if token is not None], np.int64)

    @property
    def vocabulary(self) -> int:
        """Number of token ids, added tokens included."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, texts: list[str], truncate: bool = True) -> Tokens:
        """Tokenise; a text over `max_tokens` keeps its beginning and its last special token.

        Raises TextTooLong for the first such text where `truncate` is false.
        """
        limit = self.max_tokens
        sequences: list[IntArray] = []
        truncated: list[int] = []
        if truncate:
            texts = [self._head(text) if len(text) > CHUNK_CHARACTERS else text for text in texts]
        encodings = (
            encoding for some in _chunks(texts) for encoding in self._tokenizer.encode_batch_fast(some)
        )
        for index, encoding in enumerate(encodings):
            ids = encoding.ids
            if len(ids) > limit:
                if not truncate:
                    raise TextTooLong(index, len(ids), limit)
                ids = [*ids[: limit - 1], self._last]
                truncated.append(index)
            sequences.append(np.asarray(ids, dtype=np.int64))
        return Tokens(sequences, truncated)

    def _head(self, text: str) -> str:
        """A text's beginning with twice the tokens that are kept, so that where it ends changes none."""
        end = CHUNK_CHARACTERS
        while end < len(text):
            head = text[:end]
            if len(self._tokenizer.encode_batch_fast([head])[0].ids) > 2 * self.max_tokens:
                return head
            end *= 2
        return text

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


def _chunks(texts: list[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    characters = 0
    for text in texts:
        chunk.append(text)
        characters += len(text)
        if characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    yield chunk
