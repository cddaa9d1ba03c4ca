"""What computes texts, as the batcher sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from app.engine.embeddings import FloatArray, IntArray, Kind

# Where an engine computes attention as if every text were as long as the longest: attention over this many
# token pairs, for each number in a token's state, takes about as long as everything else for one token.
PAIRS_PER_TOKEN = 3
# What a batch may waste in that way: this share of its tokens, or what starting another would cost.
WASTE_SHARE = 0.1

# Distinct sequences b x (t,), wanted r x (index of a sequence, kind) -> r arrays, shaped as for Kind
Forward = Callable[[list[IntArray], list[tuple[int, Kind]]], list[FloatArray]]


class Padding(NamedTuple):
    """What it costs an engine to compute texts of several lengths together."""

    width: int  # numbers in a token's state
    # How many tokens could be computed in the time that starting a batch takes, where attention is padded;
    # None where it is not, and any texts go together.
    start_tokens: float | None

    def too_much(self, pairs: int, tokens: int) -> bool:
        """Whether a batch of so many tokens had better not have so many token pairs that are padding."""
        if self.start_tokens is None:
            return False
        return pairs / (PAIRS_PER_TOKEN * self.width) > max(self.start_tokens, WASTE_SHARE * tokens)

    def padded(self, lengths: list[int]) -> int:
        """Tokens of a batch as attention sees them."""
        return sum(lengths) if self.start_tokens is None else len(lengths) * max(lengths)


@dataclass(frozen=True, eq=False)
class Model:
    """One of those that a process serves. Texts for different ones are never in one batch."""

    forward: Forward
    preempt: Forward | None  # a forward for which the others stop; None if they cannot
    padding: Padding
