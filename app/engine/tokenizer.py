"""Texts to token ids, with the truncation reported."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers

from app.engine.embeddings import FRAME, IntArray, Passage, Side, Span, Token
from app.engine.errors import ModelError, TextTooLong, TooMuchOutput
from app.engine.turn import Turn

# First, padding, last and unknown token, in the spellings of the two families of tokenizers.
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "[CLS]", "[PAD]", "[SEP]", "[UNK]")

# Normalisation (NFKC) makes up to 18 characters of one, and what comes of it is what costs. A text is
# normalised so many characters at a time, until there is enough to tokenise.
PIECE_CHARACTERS = 1 << 12
# Of a long text so many normalised characters for each token of the limit are tokenised first, and most often
# that is all that is kept; then twice as many.
TOKEN_CHARACTERS = 8

# Called before each step of a long call, with the tokens of the texts before; it may raise.
Pause = Callable[[int], None]


class Part(NamedTuple):
    """Tokens of a sequence, by its index."""

    sequence: int
    span: Span


@dataclass(frozen=True)
class Tokens:
    """Token ids of n texts or their passages, special tokens included."""

    sequences: list[IntArray]  # arrays (t,), one for each text or passage if there are no `places`
    truncated: list[int]  # indices of the texts that were cut short
    passages: list[Passage] = field(default_factory=list)  # (n,) where the texts were cut into passages
    places: list[list[Part]] = field(default_factory=list)  # (n,) of each passage in late chunking

    @property
    def counts(self) -> list[int]:
        """Of each sequence."""
        return [len(sequence) for sequence in self.sequences]

    @property
    def sizes(self) -> list[int]:
        """Of each text or passage, with the first special token."""
        return [1 + passage.tokens for passage in self.passages] if self.places else self.counts

    def texts_of(self, sequences: list[int]) -> list[int]:
        """Indices of the texts that these sequences are parts of."""
        if not self.passages:
            return sequences
        places = self.places or [[Part(index, Span(0, 0))] for index in range(len(self.passages))]
        asked = set(sequences)
        return sorted(
            {
                passage.text
                for passage, parts in zip(self.passages, places, strict=True)
                if any(part.sequence in asked for part in parts)
            }
        )

    @property
    def total(self) -> int:
        return sum(self.counts)

    def part(self, indices: list[int]) -> "Tokens":
        """Of these texts or passages only; of all those that are pooled late, as they share sequences."""
        if self.places:
            return self
        passages = [self.passages[index] for index in indices] if self.passages else []
        return Tokens([self.sequences[index] for index in indices], [], passages)


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
        self._frame = np.array(self._tokenizer.encode("").ids, np.int64)
        if len(self._frame) != FRAME:
            raise ModelError(f"{file} does not frame a text with one first and one last token")
        self._normalizer = self._tokenizer.normalizer
        self._turn = Turn()
        self.max_tokens = max_tokens
        known = [self._tokenizer.token_to_id(token) for token in SPECIAL]
        self.special_ids = np.array([token for token in known if token is not None], np.int64)

    @property
    def vocabulary(self) -> int:
        """Number of token ids, added tokens included."""
        return int(self._tokenizer.get_vocab_size())

    def pair(self, first: str, second: str) -> tuple[IntArray, IntArray, IntArray]:
        """Two short texts framed as a pair: ids, segments 0 or 1, and the text of each token, 0, 1 or -1."""
        found = self._tokenizer.encode(first, second)
        texts = [-1 if text is None else text for text in found.sequence_ids]
        return np.array(found.ids), np.array(found.type_ids), np.array(texts)

    def framed(self, ids: IntArray) -> IntArray:
        """A sequence of these tokens, with the first and last special one. (t,) -> (t + 2,)"""
        return np.concatenate([self._frame[:1], ids, self._frame[1:]])

    def located(
        self, text: str, pause: Pause | None = None, before: int = 0
    ) -> tuple[IntArray, IntArray, IntArray]:
        """The t tokens of a short text, without special ones: ids, first characters, ends. (t,) each

        One step, before which `pause` is told of the tokens `before`.
        """

        def tokenize(text: str) -> tokenizers.Encoding:
            return self._tokenizer.encode(text, add_special_tokens=False)

        encoding = self._step(tokenize, text, pause, before)
        offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        return np.array(encoding.ids, np.int64), offsets[:, 0].copy(), offsets[:, 1].copy()

    def encode(
        self,
        texts: list[str],
        truncate: Side | None = "right",
        pause: Pause | None = None,
        limit: int | None = None,
    ) -> Tokens:
        """Tokenise; a text over `limit` is cut on the side `truncate`, and keeps its special tokens.

        The limit is `max_tokens` where none is given.
        With `pause` one call at a time is in a step, and a step takes a quarter of a second at most.
        Raises TextTooLong for the first text that is too long where `truncate` is None.
        """
        limit, side = limit or self.max_tokens, truncate or "right"
        sequences: list[IntArray] = []
        truncated: list[int] = []
        tokens = characters = 0
        for index, text in enumerate(texts):
            characters += len(text)
            pauses = pause if characters > PIECE_CHARACTERS else None  # short texts are a step together
            characters = 0 if pauses else characters
            # Twice the tokens that are kept, so that where the text was cut changes hardly any of them.
            encode = self._tokenizer.encode_batch_fast
            encoding, whole = self._cut(text, side, 2 * limit, encode, pauses, tokens)
            ids: list[int] = encoding.ids
            if len(ids) > limit:
                if truncate is None:
                    raise TextTooLong(index, len(ids) if whole else None, limit)
                first, last = ids[: limit - 1], ids[len(ids) - (limit - 1) :]
                ids = [*first, ids[-1]] if side == "right" else [ids[0], *last]
                truncated.append(index)
            sequences.append(np.asarray(ids, dtype=np.int64))
            tokens += len(ids)
        return Tokens(sequences, truncated)

    def _cut(
        self,
        text: str,
        side: Side,
        enough: int,
        tokenize: Callable[[list[str]], list[tokenizers.Encoding]],
        pause: Pause | None,
        before: int,
    ) -> tuple[tokenizers.Encoding, bool]:
        """The tokens of a text, or, cut on `side`, of a part with more than `enough`; and whether it is all.

        `before`: tokens to tell `pause` of.
        """
        size = characters = 0
        wanted = TOKEN_CHARACTERS * self.max_tokens
        while True:
            while size < len(text) and characters < wanted:
                old, size = size, min(size + PIECE_CHARACTERS, len(text))
                piece = _part(text, side, old, size)
                if len(text) > PIECE_CHARACTERS:  # a short text is no more than a step, whatever it becomes
                    characters += len(self._step(self._normalize, piece, pause, before))
            # Of several texts the library keeps all at once, and a token takes a hundred times its id.
            (encoding,) = self._step(tokenize, [_part(text, side, 0, size)], pause, before)
            if size == len(text) or len(encoding.ids) > enough:
                return encoding, size == len(text)
            wanted *= 2

    def _normalize(self, text: str) -> str:
        return text if self._normalizer is None else str(self._normalizer.normalize_str(text))

    def _step(self, work: Callable[[Any], Any], argument: Any, pause: Pause | None, before: int) -> Any:
        if pause is None:
            return work(argument)
        with self._turn.taken(partial(pause, before)):
            return work(argument)

    def strings(self, ids: Iterable[int]) -> list[str]:
        """Each token as it reads in a text, without the mark of a word's beginning."""
        return [self._tokenizer.decode([int(token)], skip_special_tokens=False) for token in ids]

    def tokens(
        self, texts: list[str], special: bool, most: int, pause: Pause | None = None
    ) -> list[list[Token]]:
        """Every token of each text and where it stands, none cut off; `special`: the frame too.

        Raises TooMuchOutput where there are more than `most` in all.
        """

        def tokenize(batch: list[str]) -> list[tokenizers.Encoding]:
            return self._tokenizer.encode_batch(batch, add_special_tokens=special)

        found: list[list[Token]] = []
        left = most
        for text in texts:
            encoding, whole = self._cut(text, "right", left, tokenize, pause, most - left)
            left -= len(encoding.ids)
            if left < 0 or not whole:
                raise TooMuchOutput("tokens", None, most)
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


def _part(text: str, side: Side, start: int, stop: int) -> str:
    """These characters, counted from the end that stays when the text is cut on `side`."""
    return text[start:stop] if side == "right" else text[len(text) - stop : len(text) - start]
