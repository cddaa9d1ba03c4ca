"""Tokenises texts, and reports which were truncated."""

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

# First, padding, last and unknown token, as the two families of tokenizers spell them.
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "[CLS]", "[PAD]", "[SEP]", "[UNK]")

# Normalisation (NFKC) can turn one character into 18, and the cost depends on its result. So a text is
# normalised this many characters at a time, until there is enough to tokenise.
PIECE_CHARACTERS = 1 << 12
# Of a long text, this many normalised characters for each token of the limit are tokenised first. Usually
# that is enough; if not, twice as many are tokenised.
TOKEN_CHARACTERS = 8

# Called before each step of a long call, with the number of tokens in the texts before; it may raise.
Pause = Callable[[int], None]


class Part(NamedTuple):
    """A span of tokens in the sequence with this index."""

    sequence: int
    span: Span


@dataclass(frozen=True)
class Tokens:
    """Token ids of n texts or their passages, special tokens included."""

    sequences: list[IntArray]  # arrays (t,), one for each text or passage unless there are `places`
    truncated: list[int]  # indices of the texts that were cut short
    passages: list[Passage] = field(default_factory=list)  # (n,) if the texts were cut into passages
    places: list[list[Part]] = field(default_factory=list)  # (n,) of each passage, in late chunking

    @property
    def counts(self) -> list[int]:
        """Tokens of each sequence."""
        return [len(sequence) for sequence in self.sequences]

    @property
    def sizes(self) -> list[int]:
        """Tokens of each text or passage; in late chunking they include only the first special token."""
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
        """Only these texts or passages; in late chunking all of them, as passages share sequences."""
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
        # A tokenizer.json may still have the settings that somebody saved it with.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._frame = np.array(self._tokenizer.encode("").ids, np.int64)
        if len(self._frame) != FRAME:
            raise ModelError(f"{file} does not put one special token before a text and one after it")
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
        """Tokenise two short texts as a pair: ids, segments (0 or 1) and texts (0, 1, or -1 for none)."""
        found = self._tokenizer.encode(first, second)
        texts = [-1 if text is None else text for text in found.sequence_ids]
        return np.array(found.ids), np.array(found.type_ids), np.array(texts)

    def framed(self, ids: IntArray) -> IntArray:
        """These tokens between the first and the last special token. (t,) -> (t + 2,)"""
        return np.concatenate([self._frame[:1], ids, self._frame[1:]])

    def located(
        self, text: str, pause: Pause | None = None, before: int = 0
    ) -> tuple[IntArray, IntArray, IntArray]:
        """The t tokens of a short text, without special tokens: ids, first characters, ends. (t,) each

        This is one step; `pause` is called with `before` before it.
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
        """Tokenise texts; one over `limit` is cut on the side `truncate`, and keeps its special tokens.

        The limit is `max_tokens` by default.
        With `pause`, one call at a time is in a step, and a step takes at most a quarter of a second.
        If `truncate` is None, raises TextTooLong for the first text that is too long.
        """
        limit, side = limit or self.max_tokens, truncate or "right"
        sequences: list[IntArray] = []
        truncated: list[int] = []
        tokens = characters = 0
        for index, text in enumerate(texts):
            characters += len(text)
            pauses = pause if characters > PIECE_CHARACTERS else None  # short texts share a step
            characters = 0 if pauses else characters
            # Tokenise twice the tokens that are kept, so that the cut in the text changes hardly any of them.
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
        """The tokens of a text, or of a part with more than `enough` tokens, and whether that is all of it.

        A part is cut off on `side`. `pause` is called with `before`.
        """
        size = characters = 0
        wanted = TOKEN_CHARACTERS * self.max_tokens
        while True:
            while size < len(text) and characters < wanted:
                old, size = size, min(size + PIECE_CHARACTERS, len(text))
                piece = _part(text, side, old, size)
                if len(text) > PIECE_CHARACTERS:  # a short text is one step, however long it becomes
                    characters += len(self._step(self._normalize, piece, pause, before))
            # One text at a time: the library keeps a whole batch, and a token takes a hundred times its id.
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
        """Each token as it reads in a text, without the mark for the start of a word."""
        return [self._tokenizer.decode([int(token)], skip_special_tokens=False) for token in ids]

    def tokens(
        self, texts: list[str], special: bool, most: int, pause: Pause | None = None
    ) -> list[list[Token]]:
        """All tokens of each text and their offsets, without truncation; `special`: with special tokens.

        Raises TooMuchOutput if there are more than `most` in all.
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
    """These characters, counted from the end that is kept when the text is cut on `side`."""
    return text[start:stop] if side == "right" else text[len(text) - stop : len(text) - start]
