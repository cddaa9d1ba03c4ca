"""Reranker: a cross-encoder that reads a query and a passage together, served beside an encoder."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from app.engine.backends import Backend
from app.engine.checkpoint import Checkpoint, read_checkpoint
from app.engine.embeddings import (
    CROSS_ENCODER,
    HYBRID,
    Kind,
    ModelInfo,
    Pooling,
    Priority,
    Scores,
    Side,
    Timings,
    Weights,
)
from app.engine.encoder import Encoder
from app.engine.errors import ModelError, NotLoaded, TextTooLong
from app.engine.job import Caller
from app.engine.loading import load_model, load_tokenizer
from app.engine.model import Model
from app.engine.pairs import PairTokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RerankerSettings:
    """What a reranker needs to know besides its encoder's settings."""

    path: Path
    max_tokens: int = 512  # of a pair, special tokens included; the checkpoint's own limit still applies


@dataclass(frozen=True)
class _Loaded:
    checkpoint: Checkpoint
    pairs: PairTokenizer
    backend: Backend
    model: Model
    seconds: float


class Reranker:
    """Scores pairs. It shares its encoder's processors and queue, so questions go first in both."""

    def __init__(self, settings: RerankerSettings, encoder: Encoder) -> None:
        """Engine, precision, threads, cache and limits are the encoder's."""
        self.settings = settings
        self._encoder = encoder
        self._model: _Loaded | None = None

    @property
    def info(self) -> ModelInfo:
        """The served model; raises NotLoaded before `load`."""
        model = self._loaded()
        return model.checkpoint.info(
            model.pairs.max_tokens, "cls", model.backend.name, model.backend.precision
        )

    def load(self) -> None:
        """Load the model folder, after the encoder's; raises ModelError with the file at fault."""
        start = time.monotonic()
        settings, place = self._encoder.settings, self._encoder.place
        checkpoint = read_checkpoint(self.settings.path)
        if len(checkpoint.labels) != 1:
            labels = f"{len(checkpoint.labels)} labels" if checkpoint.labels else "no classification head"
            raise ModelError(
                f"{checkpoint.path} has {labels} in its config.json: a reranker needs a head with one label"
            )
        max_tokens = min(self.settings.max_tokens, checkpoint.max_tokens)
        pairs = PairTokenizer(checkpoint, load_tokenizer(checkpoint, max_tokens), max_tokens)
        backend, model = load_model(checkpoint, settings.engine, settings.precision, place)
        self._model = _Loaded(checkpoint, pairs, backend, model, 0.0)
        self.score([("warm up", "warm up " * length) for length in (1, 100)])
        seconds = time.monotonic() - start
        self._model = replace(self._model, seconds=seconds)
        log.info(
            "loaded %s in %.1f s: %s, %s, a reranker of pairs up to %d tokens",
            checkpoint.path,
            seconds,
            backend.name,
            backend.precision,
            max_tokens,
        )

    def score(
        self,
        pairs: list[tuple[str, str]],
        *,
        truncate: Side | None = "right",
        priority: Priority | None = None,
        gone: Callable[[], bool] | None = None,
    ) -> Scores:
        """Score how well the passages of n pairs (query, passage) answer their queries, as logits.

        If a pair is too long, its passage is cut on the side `truncate`. `priority`, `gone` and the errors
        are as for Encoder.encode; the index of a TextTooLong is that of a pair.
        """
        return self._score(pairs, truncate, self._encoder.caller(priority, gone))

    def rank(
        self,
        query: str,
        passages: list[str],
        top: int,
        weights: Weights = HYBRID,
        *,
        pooling: Pooling | None = None,
        truncate: Side | None = "right",
        priority: Priority | None = None,
        gone: Callable[[], bool] | None = None,
        expect: Callable[[int], None] | None = None,
    ) -> Scores:
        """Score n passages with the encoder, and the best `top` of them with the cross-encoder.

        The cross-encoder's score of the others is NaN. Both stages share one deadline. All else is as for
        Encoder.score.
        """
        caller = self._encoder.caller(priority, gone)
        pairs = [(query, passage) for passage in passages]
        later = min(top, len(pairs)) * self._loaded().pairs.max_tokens
        first = self._encoder.score_for(caller, pairs, weights, pooling, truncate, expect, later)
        best = np.argsort(-first.by_name[first.best], kind="stable")[:top]
        try:
            second = self._score([pairs[index] for index in best], truncate, caller, admitted=True)
        except TextTooLong as error:
            index = int(best[error.index])
            raise TextTooLong(index, error.tokens, error.limit, error.query) from None
        scores = np.full(len(pairs), np.nan, np.float32)
        scores[best] = second.by_name[CROSS_ENCODER]
        return Scores(
            first.by_name | {CROSS_ENCODER: scores},
            first.token_counts + second.token_counts,
            first.cut + second.cut,
            first.timings + second.timings,
            first.cached,
        )

    def _score(
        self, pairs: list[tuple[str, str]], truncate: Side | None, caller: Caller, admitted: bool = False
    ) -> Scores:
        model = self._loaded()
        start = time.perf_counter_ns()
        pause = self._encoder.pause_for(caller, sum(len(query) + len(passage) for query, passage in pairs))
        tokens = model.pairs.encode(pairs, truncate, pause)
        spent = Timings(load=round(1e9 * model.seconds), tokenize=time.perf_counter_ns() - start)
        wanted: list[tuple[Kind, ...]] = [("score",)] * len(pairs)
        found, forward = self._encoder.batcher.compute(
            model.model, tokens.sequences, wanted, caller, admitted
        )
        scores = np.array([score for (score,) in found], np.float32).reshape(len(pairs))
        return Scores({CROSS_ENCODER: scores}, tokens.counts, len(tokens.truncated), spent + forward)

    def close(self) -> None:
        """Release the weights; the encoder's `close` ends calls that still wait. You may call it again."""
        self._model = None

    def _loaded(self) -> _Loaded:
        if self._model is None:
            raise NotLoaded("the reranker is not loaded yet")
        return self._model
