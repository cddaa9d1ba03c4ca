"""Encoder: a model folder behind four verbs, load, encode and close."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from app.engine.batcher import Batcher
from app.engine.checkpoint import Checkpoint, read_checkpoint
from app.engine.embeddings import Embeddings, FloatArray, IntArray, Pooling, Precision, Timings
from app.engine.errors import ModelError, NotFinite, NotLoaded
from app.engine.heads import normalize
from app.engine.tokenizer import Tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncoderSettings:
    """What an encoder needs to know before it loads."""

    path: Path
    max_tokens: int = 8192  # the checkpoint's own limit still applies
    pooling: Pooling = "mean"
    threads: int = 1
    engine: Literal["openvino", "torch"] = "openvino"
    precision: Literal["auto"] | Precision = "auto"
    cache: Path | None = None  # for exports, where the model folder is read-only
    max_waiting: int | None = None  # tokens queued before Overloaded; None: no limit
    timeout: float | None = None  # seconds a call may wait for its last batch to start


class Backend(Protocol):
    """What runs the model."""

    name: str
    precision: str

    def forward(self, sequences: list[IntArray], wanted: list[tuple[int, Pooling]]) -> FloatArray:
        """A row (d,) for each wanted (index of a sequence, pooling), not normalised."""


class Encoder:
    """Texts in, arrays out. Cheap to make; `load` is the heavy part, once, in the worker."""

    def __init__(self, settings: EncoderSettings) -> None:
        self.settings = settings
        self._tokenizer: Tokenizer | None = None
        self._batcher: Batcher | None = None
        self._checkpoint: Checkpoint | None = None
        self._load_ns = 0

    @property
    def ready(self) -> bool:
        return self._batcher is not None

    @property
    def max_tokens(self) -> int:
        """Longest text in tokens, special tokens included."""
        own = self._checkpoint.max_tokens if self._checkpoint else self.settings.max_tokens
        return min(self.settings.max_tokens, own)

    @property
    def width(self) -> int:
        """Numbers in a dense vector; NotLoaded before `load`."""
        if self._checkpoint is None:
            raise NotLoaded("the model is not loaded yet")
        return self._checkpoint.width

    def load(self) -> None:
        """Read the model folder and warm it up; ModelError names the file that is at fault."""
        start = time.perf_counter_ns()
        settings = self.settings
        checkpoint = self._checkpoint = read_checkpoint(settings.path)
        if checkpoint.missing_head:
            log.warning("the model folder %s has no %s", checkpoint.path, checkpoint.missing_head)
        tokenizer = Tokenizer(checkpoint.tokenizer, self.max_tokens)
        if tokenizer.vocabulary > checkpoint.vocabulary:
            raise ModelError(
                f"{checkpoint.tokenizer} has {tokenizer.vocabulary} token ids, "
                f"the weights of {checkpoint.path} have {checkpoint.vocabulary}"
            )
        backend = _load_backend(checkpoint, settings)
        self._tokenizer = tokenizer
        self._batcher = Batcher(backend.forward, checkpoint.width, max_waiting=settings.max_waiting)
        self.encode(["warm up", "warm up " * min(100, self.max_tokens // 4)])
        self._load_ns = time.perf_counter_ns() - start
        log.info(
            "loaded %s in %.1f s: %s, %s, %d wide, %s pooling, up to %d tokens, %d threads",
            checkpoint.path,
            self._load_ns / 1e9,
            backend.name,
            backend.precision,
            checkpoint.width,
            settings.pooling,
            self.max_tokens,
            settings.threads,
        )

    def encode(
        self, texts: list[str], *, pooling: Pooling | None = None, truncate: bool = True
    ) -> Embeddings:
        """Embed n texts; thread-safe, blocks until all are done, keeps their order.

        `pooling` overrides the encoder's own. Raises TextTooLong where `truncate` is false, Overloaded
        and TooLate where the settings limit the queue, NotFinite for a vector with NaN or infinity,
        NotLoaded outside load() .. close().
        """
        tokenizer, batcher = self._tokenizer, self._batcher
        if tokenizer is None or batcher is None:
            raise NotLoaded("the model is not loaded yet")
        timeout = self.settings.timeout
        deadline = time.monotonic() + timeout if timeout else None
        start = time.perf_counter_ns()
        tokens = tokenizer.encode(texts, truncate)
        tokenized = time.perf_counter_ns()
        job = batcher.submit(tokens.sequences, pooling or self.settings.pooling, deadline)
        rows = job.done.result()
        done = time.perf_counter_ns()
        dense = normalize(np.stack(rows)) if rows else np.empty((0, self.width), np.float32)
        finite = np.isfinite(dense).all(axis=1)
        if not finite.all():
            raise NotFinite(int(np.argmin(finite)))
        return Embeddings(
            dense=dense,
            token_counts=tokens.counts,
            truncated=tokens.truncated,
            timings=Timings(
                load=self._load_ns,
                tokenize=tokenized - start,
                queue=job.queue_ns,
                forward=done - tokenized - job.queue_ns,
            ),
        )

    def close(self) -> None:
        """Give the weights back; what still waits fails with NotLoaded. Harmless when repeated."""
        batcher, self._batcher = self._batcher, None
        if batcher is not None:
            batcher.close()


def _load_backend(checkpoint: Checkpoint, settings: EncoderSettings) -> Backend:
    # Each imported only where it is asked for: torch costs seconds and memory, and either may be absent.
    if settings.engine == "torch":
        if settings.precision not in ("auto", "fp32"):
            raise ModelError(
                f"the torch engine runs in fp32, not in {settings.precision}, set EMBED_ENGINE=openvino"
            )
        from app.engine.torch_backend import TorchBackend

        return TorchBackend(checkpoint, settings.threads)
    try:
        from app.engine.export import ensure_export
        from app.engine.openvino_backend import OpenVINOBackend, choose_precision
    except ImportError as error:
        raise ModelError(
            f"the openvino engine cannot be loaded ({error}), the torch engine is another"
        ) from error
    precision, reason = choose_precision(settings.precision)
    log.info("precision %s: %s", precision, reason)
    graph = ensure_export(checkpoint, precision, settings.cache)
    return OpenVINOBackend(checkpoint, graph, precision, settings.threads)
