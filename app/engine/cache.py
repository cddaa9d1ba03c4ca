"""Outputs of recent texts, so that a text that comes again is not computed again."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable

from app.engine.embeddings import FloatArray, IntArray, Kind, Timings
from app.engine.errors import NotFinite

# Multi-vectors are too large to keep: 4 KB for each token, where a dense vector is 4 KB for a text.
KEPT = ("mean", "cls", "sparse")

Arrays = list[FloatArray]  # one for each kind
# Sequences and the kinds wanted of each -> the arrays of each.
Compute = Callable[[list[IntArray], list[tuple[Kind, ...]]], tuple[list[Arrays], Timings]]


class Cache:
    """The least recently used text goes first; thread-safe.

    An entry is of exactly these tokens, and holds each kind of output apart. Whatever else shapes an answer,
    such as its dimensions or encoding, is made of them anew.
    """

    def __init__(self, texts: int) -> None:
        """Keep so many texts; 0 keeps none."""
        self._texts = texts
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, dict[Kind, FloatArray]] = OrderedDict()

    def compute(
        self, sequences: list[IntArray], kinds: list[tuple[Kind, ...]], compute: Compute
    ) -> tuple[list[Arrays], Timings, int]:
        """What `compute` gives, which is called with what is not here; and how many sequences were here.

        Raises what `compute` does, with indices of these sequences in NotFinite.
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
        """Every one of these kinds, or None."""
        with self._lock:
            entry = self._entries.get(key, {})
            if not kinds or not all(kind in entry for kind in kinds):
                return None
            self._entries.move_to_end(key)
            return [entry[kind] for kind in kinds]

    def _put(self, key: bytes, kinds: tuple[Kind, ...], arrays: Arrays) -> None:
        # Copies: an array may be a view of what a whole batch gave.
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
