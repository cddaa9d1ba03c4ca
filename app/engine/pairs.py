"""Tokenises pairs of a query and a passage as FlagEmbedding's rerankers do."""

import numpy as np

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import FRAME, IntArray, Side
from app.engine.errors import ModelError, TextTooLong
from app.engine.tokenizer import Pause, Tokenizer, Tokens

LEAST_PAIR_TOKENS = 32


class PairTokenizer:
    """A checkpoint's tokenizer for pairs; thread-safe.

    A query keeps at most three quarters of a pair's tokens, and its passage gets the rest, so every pair can
    be cut to fit. FlagEmbedding's `compute_score` does the same by default.
    """

    def __init__(self, checkpoint: Checkpoint, tokenizer: Tokenizer, max_tokens: int) -> None:
        """`max_tokens` of a pair, special tokens included; raises ModelError if they are too few."""
        if max_tokens < LEAST_PAIR_TOKENS:
            raise ModelError(
                f"pairs are limited to {max_tokens} tokens for {checkpoint.path}, "
                f"but a query and a passage need at least {LEAST_PAIR_TOKENS}"
            )
        self.max_tokens = max_tokens
        self.query_tokens = max_tokens * 3 // 4
        self._tokenizer = tokenizer
        self._second = checkpoint.second
        ids, segments, texts = tokenizer.pair("a", "a")
        ids = np.where(segments, self._second(ids), ids)
        query, passage = np.flatnonzero(texts == 0), np.flatnonzero(texts == 1)
        self._first = ids[: query[0]]
        self._between = ids[query[-1] + 1 : passage[0]]
        self._last = ids[passage[-1] + 1 :]
        self._apart = bool(segments[passage[0]])
        frame = [len(self._first), len(self._between), len(self._last)]
        if not all(frame):
            raise ModelError(f"{checkpoint.tokenizer} does not say how two texts are framed as a pair")
        self._frame = sum(frame)

    def encode(
        self, pairs: list[tuple[str, str]], truncate: Side | None = "right", pause: Pause | None = None
    ) -> Tokens:
        """Tokenise n pairs, each text once; if a pair is too long, its passage is cut on the side `truncate`.

        If `truncate` is None, raises TextTooLong with the index of the first pair that is too long. `pause`
        is as for Tokenizer.encode.
        """
        asked = [query for query, _ in pairs]
        queries, cut_queries = self._texts(asked, self.query_tokens, truncate, pause, are_queries=True)
        most = self.max_tokens - self._frame
        passages, cut = self._texts([passage for _, passage in pairs], most, truncate, pause)
        if self._apart:
            passages = {text: self._second(ids) for text, ids in passages.items()}
        fronts = {text: np.concatenate([self._first, ids, self._between]) for text, ids in queries.items()}
        sequences: list[IntArray] = []
        truncated: list[int] = []
        for index, (query, passage) in enumerate(pairs):
            front, ids = fronts[query], passages[passage]
            room = self.max_tokens - len(front) - len(self._last)
            if len(ids) > room:
                if truncate is None:
                    raise TextTooLong(index, len(front) + len(ids) + len(self._last), self.max_tokens)
                ids = ids[:room] if truncate == "right" else ids[len(ids) - room :]
            if len(passages[passage]) > room or passage in cut or query in cut_queries:
                truncated.append(index)
            sequences.append(np.concatenate([front, ids, self._last]))
        return Tokens(sequences, truncated)

    def _texts(
        self,
        texts: list[str],
        most: int,
        truncate: Side | None,
        pause: Pause | None,
        are_queries: bool = False,
    ) -> tuple[dict[str, IntArray], set[str]]:
        """The tokens of the distinct texts, at most `most`, none special; and which texts were cut."""
        distinct = list(dict.fromkeys(texts))
        try:
            found = self._tokenizer.encode(distinct, truncate, pause, limit=most + FRAME)
        except TextTooLong as error:
            index = texts.index(distinct[error.index])
            tokens = error.tokens and error.tokens - FRAME
            raise TextTooLong(index, tokens, most, are_queries) from None
        ids = {text: ids[1:-1] for text, ids in zip(distinct, found.sequences, strict=True)}
        return ids, {distinct[index] for index in found.truncated}
