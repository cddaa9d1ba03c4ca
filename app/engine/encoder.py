"""Encoder: loads a model folder, embeds texts and scores pairs."""

import logging
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from app.engine.backends import AskedEngine, AskedPrecision, Place
from app.engine.batcher import Batcher
from app.engine.cache import Cache
from app.engine.checkpoint import HEADS, Checkpoint, read_checkpoint
from app.engine.demo import is_demo
from app.engine.embeddings import (
    DENSE,
    HYBRID,
    BatchStats,
    Chunking,
    Embeddings,
    Head,
    Load,
    ModelInfo,
    Output,
    Pooling,
    Priority,
    Scores,
    Side,
    Timings,
    Token,
    Weights,
    count_numbers,
)
from app.engine.errors import LateNeedsMean, MissingHead, ModelError, NotLoaded, TextTooLong
from app.engine.job import Caller
from app.engine.loaded import Loaded
from app.engine.loading import load_model, load_tokenizer
from app.engine.measure import unrelated_cosine
from app.engine.passages import MOST_TOKENS, cut
from app.engine.policy import QUESTION_TOKENS, Policy
from app.engine.prepare import known_of_int8
from app.engine.scores import Plan, in_tokens, score_pairs
from app.engine.space import rounding, space_name
from app.engine.tokenizer import Pause, Tokens

log = logging.getLogger(__name__)

# How many batches may run at the same time if throughput counts: threads of one forward pass wait for each
# other, those of several do not. Each batch needs its own memory.
MOST_STREAMS = 4
# Texts of up to this many characters in all are tokenised in one step, like a question.
QUESTION_CHARACTERS = 2000


@dataclass(frozen=True)
class EncoderSettings:
    """What an encoder needs to know before it loads."""

    path: Path
    max_tokens: int = 8192  # the checkpoint's own limit still applies
    pooling: Pooling = "mean"
    threads: int = 1
    throughput: bool = False  # more tokens per second, but each batch has fewer threads and takes longer
    engine: AskedEngine = "auto"
    precision: AskedPrecision = "auto"
    cache: Path | None = None  # for exports, if the model folder is read-only
    instructions: str = ""  # use only this instruction set, for comparisons
    max_waiting: int | None = None  # tokens queued before Overloaded; None: no limit
    timeout: float | None = None  # seconds a call may wait for its last batch to start
    cache_texts: int = 0  # how many texts' outputs are cached in memory


class Encoder:
    """Turns texts into arrays. It is cheap to create; `load` is expensive, and runs once in each worker."""

    def __init__(self, settings: EncoderSettings, watch: Callable[[BatchStats], None] | None = None) -> None:
        """`watch` is called with each batch before it runs, in the thread that runs it."""
        self.settings = settings
        self._watch = watch
        self._model: Loaded | None = None
        self._load_ns = 0
        self._int8: dict[str, Any] = {}
        self._rounding = ""
        self._demo = False
        self._unrelated_cosine: dict[str, float] | None = None

    @property
    def load_state(self) -> Load:
        """The current load; not ready before load() and after close()."""
        return self._model.batcher.load if self._model else Load()

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text, special tokens included."""
        return self._model.tokenizer.max_tokens if self._model else self.settings.max_tokens

    @property
    def width(self) -> int:
        """Dimensions of a dense vector; raises NotLoaded before `load`."""
        return self._loaded().checkpoint.width

    @property
    def heads(self) -> tuple[Head, ...]:
        """The checkpoint's outputs besides dense vectors; raises NotLoaded before `load`."""
        return self._loaded().checkpoint.heads

    @property
    def batcher(self) -> Batcher:
        """The batcher, for other models that share it; raises NotLoaded before `load`."""
        return self._loaded().batcher

    @property
    def place(self) -> Place:
        """The folder, threads and instructions that the model runs with."""
        settings = self.settings
        most = MOST_STREAMS if settings.throughput else 1
        streams = max(count for count in range(1, most + 1) if settings.threads % count == 0)
        return Place(settings.cache, settings.threads, streams, settings.instructions)

    @property
    def info(self) -> ModelInfo:
        """The served model; raises NotLoaded before `load`."""
        model = self._loaded()
        backend = model.backend
        found = model.checkpoint.info(self.max_tokens, self.settings.pooling, backend.name, backend.precision)
        return replace(
            found,
            space=self.space(),
            int8=self._int8,
            demo=self._demo,
            unrelated_cosine=self._unrelated_cosine,
        )

    def space(self, pooling: Pooling | None = None) -> str:
        """The name of the space of `encode`'s dense vectors; raises NotLoaded before `load`."""
        model = self._loaded()
        pooling, precision = pooling or self.settings.pooling, model.backend.precision
        return space_name(model.checkpoint.fingerprint, pooling, precision, self._rounding, self.max_tokens)

    def load(self) -> None:
        """Load the model folder and warm it up; raises ModelError with the file that is at fault."""
        start = time.perf_counter_ns()
        settings = self.settings
        checkpoint = read_checkpoint(settings.path)
        if checkpoint.labels:
            raise ModelError(
                f"{checkpoint.path} is a classifier, not an encoder, according to its config.json: "
                "to serve it as a reranker, set EMBED_RERANKER_PATH to it"
            )
        if checkpoint.missing_head:
            log.warning("the model folder %s has no %s", checkpoint.path, checkpoint.missing_head)
        tokenizer = load_tokenizer(checkpoint, min(settings.max_tokens, checkpoint.max_tokens))
        place = self.place
        log.info("loading %s, %.1f GB", checkpoint.path, checkpoint.size / 1e9)
        backend, model = load_model(checkpoint, settings.engine, settings.precision, place)
        preempts = backend.preempt is not None
        self._rounding = rounding(checkpoint, backend.name, backend.precision, settings.cache)
        batcher = Batcher(Policy(settings.max_waiting), preempts, backend.streams, self._watch)
        self._model = Loaded(checkpoint, tokenizer, backend, model, batcher, Cache(settings.cache_texts))
        self.encode(["warm up", "warm up " * min(100, self.max_tokens // 4)])
        self.encode(["warm up"], outputs=(), chunk=Chunking())
        self._demo = is_demo(checkpoint)
        self._unrelated_cosine = unrelated_cosine(checkpoint, settings.pooling, settings.cache)
        self._load_ns = time.perf_counter_ns() - start
        if settings.precision == "auto":
            self._tell_of_int8(checkpoint, place)
        log.info(
            "loaded %s in %.1f s: %s, %s, %d dimensions, %s pooling, up to %d tokens, %d threads",
            checkpoint.path,
            self._load_ns / 1e9,
            backend.name,
            backend.precision,
            checkpoint.width,
            settings.pooling,
            self.max_tokens,
            settings.threads,
        )

    def _tell_of_int8(self, checkpoint: Checkpoint, place: Place) -> None:
        self._int8 = known_of_int8(checkpoint, self.settings.engine, place)
        if self._int8:
            log.info(
                "EMBED_PRECISION=int8 is %.1f times as fast as %s here, and its mean cosine to fp32 is %.4f",
                self._int8["times_as_fast"],
                self._int8["than"],
                self._int8["cosine_mean"],
            )
        else:
            log.info("EMBED_PRECISION=int8 has not been measured here: flask model export measures it")

    def encode(
        self,
        texts: list[str],
        *,
        pooling: Pooling | None = None,
        outputs: Collection[Output] = DENSE,
        truncate: Side | None = "right",
        priority: Priority | None = None,
        gone: Callable[[], bool] | None = None,
        expect: Callable[[int], None] | None = None,
        patient: bool = False,
        chunk: Chunking | None = None,
        colbert_pool: int | None = None,
    ) -> Embeddings:
        """Embed n texts; thread-safe, blocks until all are done, keeps their order.

        `pooling` of dense vectors overrides the encoder's own. One forward pass computes all `outputs`.
        With `chunk`, texts of any length are cut into passages, and the outputs are those of the passages.
        `colbert_pool` leaves about one row of a multi-vector for this many tokens, see token_pooling.
        A call is interactive or bulk by its `priority` or else by its size; interactive calls go first.
        `expect` is called with how many numbers the outputs will hold, before they are computed; what it
        raises ends the call. A `patient` call has no deadline.

        Raises TextTooLong if `truncate` is None and a text is too long, MissingHead for an output that the
        checkpoint does not have, LateNeedsMean for late chunking with another pooling, NotFinite for a
        vector with NaN or infinity, Abandoned once `gone` returns True, and NotLoaded before load() and
        after close(). If the settings limit the queue or the wait, raises Overloaded, TooLate and, for
        passages of too many tokens, TooMuchOutput.
        """
        model = self._loaded()
        for head in HEADS:
            if head in outputs and head not in model.checkpoint.heads:
                raise MissingHead(head)
        pooling = pooling or self.settings.pooling
        if chunk and chunk.late and pooling != "mean":
            raise LateNeedsMean
        caller = self.caller(priority, gone, patient)
        start = time.perf_counter_ns()
        tokens = self._tokenize(texts, truncate, caller, chunk)
        factor = colbert_pool if "colbert" in outputs else None
        if expect:
            expect(model.count(tokens, outputs, factor))
        spent = Timings(load=self._load_ns, tokenize=time.perf_counter_ns() - start)
        if factor:
            pause = partial(self._pause, caller)
            found = model.compute_pooled(tokens, pooling, outputs, caller, factor, pause)
        else:
            found = model.compute(tokens, pooling, outputs, caller)
        return replace(found, timings=spent + found.timings)

    def caller(
        self, priority: Priority | None, gone: Callable[[], bool] | None, patient: bool = False
    ) -> Caller:
        """The caller of a call that starts now; arguments as for `encode`."""
        timeout = None if patient else self.settings.timeout
        return Caller(priority, gone, time.monotonic() + timeout if timeout else None)

    def _tokenize(
        self, texts: list[str], truncate: Side | None, caller: Caller, chunk: Chunking | None = None
    ) -> Tokens:
        pause = self.pause_for(caller, sum(map(len, texts)))
        tokenizer = self._loaded().tokenizer
        if chunk is None:
            return tokenizer.encode(texts, truncate, pause)
        most = None if self.settings.max_waiting is None else MOST_TOKENS
        return cut(tokenizer, texts, chunk, pause, most)

    def pause_for(self, caller: Caller, characters: int) -> Pause | None:
        """What the tokenizer calls between two steps; None if this many characters take only one step."""
        batcher = self.batcher

        def pause(tokens: int) -> None:
            self._pause(caller)
            if tokens > QUESTION_TOKENS:  # with fewer, it may still be a question
                batcher.check(tokens, caller)

        return pause if characters > QUESTION_CHARACTERS else None

    def score(
        self,
        pairs: list[tuple[str, str]],
        weights: Weights = HYBRID,
        *,
        pooling: Pooling | None = None,
        truncate: Side | None = "right",
        priority: Priority | None = None,
        gone: Callable[[], bool] | None = None,
        expect: Callable[[int], None] | None = None,
    ) -> Scores:
        """Score how similar n pairs (query, passage) are, by every representation that the checkpoint has.

        Without `pooling`, dense vectors are pooled as the checkpoint was trained, if it says how. `weights`
        are those of dense, sparse and colbert. `priority`, `gone`, `expect` and the errors are as for
        `encode`; the index of a TextTooLong is that of a pair.
        """
        return self.score_for(self.caller(priority, gone), pairs, weights, pooling, truncate, expect)

    def score_for(
        self,
        caller: Caller,
        pairs: list[tuple[str, str]],
        weights: Weights,
        pooling: Pooling | None,
        truncate: Side | None,
        expect: Callable[[int], None] | None,
        later: int = 0,
    ) -> Scores:
        """Like `score`, for a caller that needs up to `later` more tokens computed afterwards."""
        model = self._loaded()
        checkpoint = model.checkpoint
        outputs: tuple[Output, ...] = ("dense", *checkpoint.heads)
        trained = pooling or checkpoint.trained_pooling or self.settings.pooling
        start = time.perf_counter_ns()
        plan = Plan(pairs)
        try:
            tokens = self._tokenize(plan.texts, truncate, caller)
        except TextTooLong as error:
            pair, query = plan.pair_of(error.index)
            raise TextTooLong(pair, error.tokens, error.limit, query) from None
        spent = Timings(load=self._load_ns, tokenize=time.perf_counter_ns() - start)
        groups = plan.groups(tokens.counts)
        if expect:
            sizes = [count_numbers(tokens.part(group).counts, checkpoint.width, outputs) for group in groups]
            expect(sizes[0] + max(sizes[1:], default=0))
        shape = checkpoint.layers, checkpoint.width, checkpoint.inner
        compared = in_tokens(plan.token_pairs(tokens.counts), *shape) if "colbert" in outputs else 0
        model.batcher.check(tokens.total + compared + later, caller)

        cached = 0

        def encode(indices: list[int]) -> Embeddings:
            nonlocal spent, cached
            found = model.compute(tokens.part(indices), trained, outputs, caller, admitted=True)
            spent += found.timings
            cached += found.cached
            return found

        pause = partial(self._pause, caller)
        by_name = score_pairs(plan, groups, encode, weights, checkpoint.heads, pause)
        return Scores(by_name, tokens.counts, len(tokens.truncated), spent, cached)

    def give_way(self) -> None:
        """Wait while a question is computed: for other work of this process that can wait."""
        if self._model:
            self._model.batcher.give_way()

    def _pause(self, caller: Caller) -> None:
        """Let questions go first between two steps; raises TooLate or Abandoned if the call should end."""
        self.give_way()
        caller.check(time.monotonic())

    def token_strings(self, ids: Iterable[int]) -> list[str]:
        """Each token as people read it in a text; raises NotLoaded before `load`."""
        return self._loaded().tokenizer.strings(ids)

    def tokenize(
        self, texts: list[str], special: bool, most: int, gone: Callable[[], bool] | None = None
    ) -> list[list[Token]]:
        """The tokens of each text, without truncation; `special`: with its first and last special token.

        Raises TooMuchOutput if there are more than `most`, and TooLate, Abandoned and NotLoaded.
        """
        caller = self.caller(None, gone)
        return self._loaded().tokenizer.tokens(texts, special, most, lambda _: self._pause(caller))

    def _loaded(self) -> Loaded:
        if self._model is None:
            raise NotLoaded("the model is not loaded yet")
        return self._model

    def close(self) -> None:
        """Release the weights; calls that still wait fail with NotLoaded. You may call it again."""
        model, self._model = self._model, None
        if model is not None:
            model.batcher.close()
