"""A model as the batcher sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from app.engine.embeddings import FloatArray, IntArray, Kind

# If an engine pads attention to the longest text: attention over this many token pairs, times the width of a
# state, takes about as long as everything else for one token.
PAIRS_PER_TOKEN = 3
# A batch may waste this share of its tokens on padding, or as much as starting another batch would cost.
WASTE_SHARE = 0.1

# Distinct sequences b x (t,), wanted r x (index of a sequence, kind) -> r arrays, shaped as for Kind
Forward = Callable[[list[IntArray], list[tuple[int, Kind]]], list[FloatArray]]


class Padding(NamedTuple):
    """What it costs an engine to compute texts of different lengths in one batch."""

    width: int  # dimensions of a token's state
    # How many tokens could be computed in the time that starting a batch takes, if attention is padded; None
    # if it is not, so that texts of any lengths can share a batch.
    start_tokens: float | None

    def too_much(self, pairs: int, tokens: int) -> bool:
        """Whether this many token pairs of padding are too many for a batch of this many tokens."""
        if self.start_tokens is None:
            return False
        return pairs / (PAIRS_PER_TOKEN * self.width) > max(self.start_tokens, WASTE_SHARE * tokens)

    def padded(self, lengths: list[int]) -> int:
        """Tokens of a batch as attention counts them, padding included."""
        return sum(lengths) if self.start_tokens is None else len(lengths) * max(lengths)


@dataclass(frozen=True, eq=False)
class Model:
    """One of the models that a process serves. A batch never mixes texts for different models."""

    forward: Forward
    preempt: Forward | None  # a forward pass that pauses all others; None if they cannot pause
    padding: Padding
