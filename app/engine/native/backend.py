"""The native backend: the forward pass in C, in fp32, bf16 or with 8-bit weights."""

import ctypes
from itertools import pairwise
from pathlib import Path

import numpy as np

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import FloatArray, IntArray, Kind, Precision, Span
from app.engine.heads import pooled
from app.engine.native.layout import KINDS, STORED, Arrays, embedded, linear, structure


class NativeBackend:
    """An export and a library, run by `forward`."""

    name = "native"
    start_tokens: float | None = (
        None  # attention to a text is as long as the text, whatever else is in the batch
    )

    def __init__(
        self,
        checkpoint: Checkpoint,
        export: Path,
        precision: Precision,
        library: ctypes.CDLL,
        threads: int = 1,
        streams: int = 1,
    ) -> None:
        """Read an export; up to `streams` forward passes run at a time, each on its share of the threads."""
        self.precision = precision
        self.streams = streams
        self._threads = max(1, threads // streams)
        self._all_threads = max(1, threads)
        self._library = library
        self._arrays = Arrays(export)
        self._model = structure(
            checkpoint,
            self._arrays,
            STORED[precision],
            2 if precision == "w8a16" else 1,
            bf16=precision in ("bf16", "int8"),
        )
        if "colbert" in checkpoint.heads:
            self._colbert = linear(self._arrays, "colbert", "fp32")
        self._vocabulary = checkpoint.vocabulary
        self._positions_of = checkpoint.positions_of

    def forward(self, sequences: list[IntArray], wanted: list[tuple[int, Kind]]) -> list[FloatArray]:
        """Compute each wanted (index of a sequence, kind): shapes as for Kind, not normalised."""
        return self._forward(sequences, wanted, preempts=False)

    def preempt(self, sequences: list[IntArray], wanted: list[tuple[int, Kind]]) -> list[FloatArray]:
        """Like `forward`, but with all threads, and pauses every running `forward` meanwhile."""
        return self._forward(sequences, wanted, preempts=True)

    def _forward(
        self, sequences: list[IntArray], wanted: list[tuple[int, Kind]], preempts: bool
    ) -> list[FloatArray]:
        firsts = all(kind == "cls" for _, kind in wanted)
        states = self.states(sequences, preempts, firsts)
        return [self._one(states[index], kind, preempts) for index, kind in wanted]

    def states(
        self, sequences: list[IntArray], preempts: bool = False, firsts: bool = False
    ) -> list[FloatArray]:
        """The last layer's states of each sequence's tokens, or only of its first token. n x (t, d)

        Raises MemoryError if there is not enough memory.
        """
        starts = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])])
        ids = np.concatenate(sequences) % self._vocabulary
        positions = np.concatenate([self._positions_of(sequence) for sequence in sequences])
        states = embedded(self._arrays, ids, positions)
        failed = self._library.forward(
            ctypes.byref(self._model),
            states.ctypes.data_as(ctypes.c_void_p),
            starts.astype(np.int32).ctypes.data_as(ctypes.c_void_p),
            len(sequences),
            firsts,
            *self._how(preempts),
        )
        if failed:
            raise MemoryError(f"no memory for a batch of {len(ids)} tokens")
        if firsts:
            return list(states[: len(sequences), None])
        return [states[start:end] for start, end in pairwise(starts)]

    def _how(self, preempts: bool) -> tuple[int, int]:
        """The number of threads, and whether other forward passes give way."""
        return (self._all_threads, 1) if preempts else (self._threads, 0)

    def _one(self, states: FloatArray, kind: Kind, preempts: bool) -> FloatArray:
        if kind == "mean" or kind == "cls" or isinstance(kind, Span):
            return pooled(states, kind)
        assert kind != "score"  # see Scoring
        if kind == "sparse":
            return np.asarray(states @ self._arrays["sparse.matrix"][0] + self._arrays["sparse.bias"])
        projected = np.empty_like(states)
        failed = self._library.multiply(
            KINDS["fp32"],
            1,
            ctypes.byref(self._colbert),
            states.ctypes.data_as(ctypes.c_void_p),
            len(states),
            projected.ctypes.data_as(ctypes.c_void_p),
            *self._how(preempts),
        )
        if failed:
            raise MemoryError(f"no memory for the multi-vectors of {len(states)} tokens")
        return projected
