"""A backend that computes a cross-encoder's scores."""

from typing import TYPE_CHECKING

from app.engine.embeddings import FloatArray, IntArray, Kind
from app.engine.heads import ScoringHead
from app.engine.model import Forward

if TYPE_CHECKING:
    from app.engine.backends import Backend


class Scoring:
    """An engine that computes the states of first tokens, and the head that scores pairs from them."""

    def __init__(self, backend: "Backend", head: ScoringHead) -> None:
        self._backend = backend
        self._head = head
        self.name = backend.name
        self.precision = backend.precision
        self.streams = backend.streams
        self.start_tokens = backend.start_tokens
        self.forward = self._scored(backend.forward)
        self.preempt = self._scored(backend.preempt) if backend.preempt else None

    def _scored(self, forward: Forward) -> Forward:
        def scored(sequences: list[IntArray], wanted: list[tuple[int, Kind]]) -> list[FloatArray]:
            """Compute each wanted (index of a pair, kind): shapes as for Kind."""
            asked: list[tuple[int, Kind]] = [
                (index, "cls" if kind == "score" else kind) for index, kind in wanted
            ]
            return [
                self._head(found) if kind == "score" else found
                for found, (_, kind) in zip(forward(sequences, asked), wanted, strict=True)
            ]

        return scored
