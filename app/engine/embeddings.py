"""The engine's answer, as plain data."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Pooling = Literal["mean", "cls"]
Precision = Literal["fp32", "bf16", "int8"]


@dataclass(frozen=True)
class Timings:
    """Where the time of one `encode` call went, in nanoseconds.

    `load` is what loading the model took, once, before this call.
    """

    load: int = 0
    tokenize: int = 0
    queue: int = 0
    forward: int = 0


@dataclass(frozen=True)
class Embeddings:
    """Vectors of n texts, in the order the texts were given."""

    dense: FloatArray  # (n, d), rows of length 1
    token_counts: list[int]  # (n,), special tokens included, after truncation
    truncated: list[int]  # indices of the texts that were cut
    timings: Timings = field(default_factory=Timings)
