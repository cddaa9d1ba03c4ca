"""A cache of recent texts' outputs, so that a repeated text is not computed again."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable

from app.engine.embeddings import FloatArray, IntArray, Kind, Timings
from app.engine.errors import NotFinite

# Multi-vectors are too large to keep: 4 KB for each token, while a dense vector takes 4 KB for a text.
KEPT = ("mean", "cls", "sparse")

Arrays = list[FloatArray]  # one for each kind
# Sequences, the kinds wanted of each -> the arrays of each, timings
Compute = Callable[[list[IntArray], list[tuple[Kind, ...]]], tuple[list[Arrays], Timings]]


class Cache:
    """A thread-safe LRU cache.

    The key is a text's exact tokens; an entry holds each kind of output separately. Everything else that
    shapes an answer, such as its dimensions or encoding, is applied to the cached outputs each time.
    """

    def __init__(self, texts: int) -> None:
        """Keep the outputs of up to `texts` texts; 0 keeps none."""
        self._texts = texts
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, dict[Kind, FloatArray]] = OrderedDict()

    def compute(
        self, sequences: list[IntArray], kinds: list[tuple[Kind, ...]], compute: Compute
    ) -> tuple[list[Arrays], Timings, int]:
        """Call `compute` for what is not cached; also returns how many of the sequences were cached.

        Raises what `compute` raises; the indices in NotFinite are those of `sequences`.
        """
        keys = [hashlib.sha256(sequence.tobytes()).digest() for sequence in sequences if self._texts]
        known = [self._get(key, of) for key, of in zip(keys, kinds, strict=False)] or [None] * len(sequences)
        missing = [index for index, arrays in enumerate(known) if arrays is None]
        try:
            computed, spent = compute(
                [sequences[index] for index in missing], [kinds[index] for index in missing]
            )
        except NotFinite as error:
            raise NotFinite([missing[index] for index in error.indices]) from None
        new = dict(zip(missing, computed, strict=True))
        for index, arrays in new.items():
            if keys:
                self._put(keys[index], kinds[index], arrays)
        found = [new[index] if arrays is None else arrays for index, arrays in enumerate(known)]
        return found, spent, len(sequences) - len(missing)

    def _get(self, key: bytes, kinds: tuple[Kind, ...]) -> Arrays | None:
        """The arrays of all these kinds, or None if any is missing."""
        with self._lock:
            entry = self._entries.get(key, {})
            if not kinds or not all(kind in entry for kind in kinds):
                return None
            self._entries.move_to_end(key)
            return [entry[kind] for kind in kinds]

    def _put(self, key: bytes, kinds: tuple[Kind, ...], arrays: Arrays) -> None:
        # Copy, as an array may be a view that keeps the outputs of a whole batch in memory.
        kept: dict[Kind, FloatArray] = {
            kind: array.copy() for kind, array in zip(kinds, arrays, strict=True) if kind in KEPT
        }
        if not kept:
            return
        with self._lock:
            self._entries.setdefault(key, {}).update(kept)
            self._entries.move_to_end(key)
            if len(self._entries) > self._texts:
                self._entries.popitem(last=False)
