"""What the engine takes and returns, as plain data."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np
from numpy.typing import NDArray

from app.engine.errors import ChunkOutOfRange

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Pooling = Literal["mean", "cls"]
Precision = Literal["fp32", "bf16", "int8", "w8a16"]  # w8a16: 8-bit weights, 16-bit activations
Head = Literal["sparse", "colbert"]
Output = Literal["dense", "sparse", "colbert"]
DENSE: tuple[Output, ...] = ("dense",)
FRAME = 2  # special tokens around a text: the first and the last
POOL_FACTORS = range(2, 9)  # how many tokens may share a row of a multi-vector, on average


class Span(NamedTuple):
    """Tokens `start` to `stop` of a sequence."""

    start: int
    stop: int


# What a backend computes for a text of t tokens: a pooled state (d,), the mean state of a span (d,), or a
# head's value for every token, (t,) for sparse and (t, d) for colbert. For a pair its score (1,).
Kind = Literal["mean", "cls", "sparse", "colbert", "score"] | Span
Priority = Literal["interactive", "bulk"]  # a question that somebody waits for, or part of a corpus
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
Side = Literal["right", "left"]  # which end of a text that is too long is cut off
Weights = tuple[float, float, float]  # of dense, sparse and colbert in a hybrid score
BGE_M3 = "xlm-roberta", 24, 1024, 250002  # family, layers, width, vocabulary
HYBRID: Weights = (0.4, 0.2, 0.4)  # the weights that BGE-M3's authors suggest for compute_score
CROSS_ENCODER = "cross-encoder"  # the name of its score, besides those of the representations
Lexical = tuple[NDArray[np.int32], FloatArray]  # token ids (k,) ascending, weights (k,) > 0


CHUNK_TOKENS = 256  # of a passage, unless a call asks for another number
LEAST_CHUNK_TOKENS = 32  # with fewer there is no room to choose a good border
OVERLAP_SHARE = 8  # a passage shares an eighth of its tokens with the next, unless a call says otherwise


@dataclass(frozen=True)
class Chunking:
    """How texts are cut into passages."""

    # The most tokens of a passage, without special tokens. None: the texts already are a document's passages.
    tokens: int | None = CHUNK_TOKENS
    # The most tokens that a passage shares with the one before it; up to half of `tokens`.
    overlap: int = CHUNK_TOKENS // OVERLAP_SHARE
    late: bool = False  # pool passages from a forward pass over the whole document (late chunking)

    @classmethod
    def of(cls, max_tokens: int, tokens: object = None, overlap: object = None, late: bool = False) -> Self:
        """Fill in defaults for a model with this limit of tokens; raises ChunkOutOfRange."""
        most = max(LEAST_CHUNK_TOKENS, max_tokens - FRAME)
        tokens = min(CHUNK_TOKENS, most) if tokens is None else tokens
        if type(tokens) is not int or not LEAST_CHUNK_TOKENS <= tokens <= most:
            raise ChunkOutOfRange("tokens", LEAST_CHUNK_TOKENS, most)
        overlap = tokens // OVERLAP_SHARE if overlap is None else overlap
        if type(overlap) is not int or not 0 <= overlap <= tokens // 2:
            raise ChunkOutOfRange("overlap", 0, tokens // 2)
        return cls(tokens, overlap, late)


@dataclass(frozen=True)
class Passage:
    """Characters `start` to `stop` of a text, in code points."""

    text: int  # the text's index
    start: int
    stop: int
    tokens: int  # special tokens not counted


@dataclass(frozen=True)
class Timings:
    """Where the time of one `encode` call went, in nanoseconds.

    `load` is the time that loading the model took, once, before this call.
    """

    load: int = 0
    tokenize: int = 0
    queue: int = 0
    forward: int = 0

    def __add__(self, other: "Timings") -> "Timings":
        """The times of two calls, one after the other."""
        return Timings(
            self.load,
            self.tokenize + other.tokenize,
            self.queue + other.queue,
            self.forward + other.forward,
        )


def count_numbers(token_counts: list[int], width: int, outputs: Collection[Output]) -> int:
    """The most numbers that these outputs hold, for texts with these token counts."""
    texts, tokens = len(token_counts), sum(token_counts)
    sizes = {"dense": texts * width, "sparse": 2 * tokens, "colbert": (tokens - texts) * width}
    return sum(sizes[output] for output in outputs)


@dataclass(frozen=True)
class BatchStats:
    """What one forward pass computes."""

    priority: Priority  # of the whole batch
    texts: int
    tokens: int
    padded: int  # tokens as attention counts them: every text as long as the longest
    waits: list[float]  # seconds in the queue, for each call that starts with this batch


@dataclass(frozen=True)
class Load:
    """How much an encoder has to do."""

    ready: bool = False
    broken: bool = False  # a thread of the batcher has ended, though nobody closed it
    busy_seconds: float = 0.0  # how long the oldest running forward pass has taken so far
    waiting: Mapping[Priority, int] = field(default_factory=dict)  # tokens in the queue
    full: frozenset[Priority] = frozenset()  # classes whose queue is full
    # Estimated seconds until the queue is empty, at least 1.
    drain_seconds: Mapping[Priority, int] = field(default_factory=lambda: dict.fromkeys(PRIORITIES, 1))


@dataclass(frozen=True)
class Embeddings:
    """The outputs of n texts or their passages, in order; outputs that were not asked for are empty."""

    dense: FloatArray  # (n, d), rows of length 1
    lengths: FloatArray  # (n,), L2 norms of the dense rows before they were normalised
    sparse: list[Lexical]  # n
    multi_vector: list[FloatArray]  # n times (t - 1, d), or fewer rows if pooled, rows of length 1
    token_counts: list[int]  # of each sequence, with special tokens: (n,) except in late chunking
    truncated: list[int]  # indices of the texts that were cut short
    timings: Timings = field(default_factory=Timings)
    passages: list[Passage] = field(default_factory=list)  # (n,) if the texts were cut into passages
    cached: int = 0  # how many of the sequences came from the cache

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(self.token_counts)

    @property
    def cut(self) -> int:
        """How many texts were cut."""
        return len(self.truncated)


def joined(parts: list[Embeddings]) -> Embeddings:
    """Concatenate embeddings, in order; which texts were cut is not kept."""
    return Embeddings(
        dense=np.concatenate([part.dense for part in parts]),
        lengths=np.concatenate([part.lengths for part in parts]),
        sparse=[weights for part in parts for weights in part.sparse],
        multi_vector=[rows for part in parts for rows in part.multi_vector],
        token_counts=[count for part in parts for count in part.token_counts],
        truncated=[],
        timings=sum((part.timings for part in parts), Timings()),
        passages=[passage for part in parts for passage in part.passages],
        cached=sum(part.cached for part in parts),
    )


@dataclass(frozen=True)
class Scores:
    """How similar the texts of n pairs are, in the order of the pairs."""

    # (n,) each; the last one combines the most and ranks best. NaN for pairs that were not compared this way.
    by_name: dict[str, FloatArray]
    token_counts: list[int]  # of all distinct texts, and of pairs that a cross-encoder read
    cut: int  # how many texts or pairs were cut
    timings: Timings = field(default_factory=Timings)
    cached: int = 0  # how many of the texts came from the cache

    @property
    def tokens(self) -> int:
        """Tokens of all texts and pairs."""
        return sum(self.token_counts)

    @property
    def best(self) -> str:
        """The name of the score to rank by."""
        return list(self.by_name)[-1]


@dataclass(frozen=True)
class Token:
    """A token of a text; start and stop are offsets in its characters, None for special tokens."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


@dataclass(frozen=True)
class ModelInfo:
    """The served model, for clients that ask before they send texts."""

    family: str  # model_type of its config.json
    parameters: int  # of the backbone
    size: int  # bytes of its weight files
    digest: str  # sha256 that changes with the weights
    modified: float  # seconds since 1970
    layers: int
    width: int
    vocabulary: int
    max_tokens: int
    pooling: Pooling  # the server's default
    heads: tuple[Head, ...]
    engine: str
    precision: Precision
    space: str = ""  # the name of its vectors' space, with this pooling; "" for a cross-encoder
    # int8 compared with `auto` on this processor: times_as_fast, than, cosine_mean, ...; {} if unknown.
    int8: dict[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()  # of a cross-encoder's scores; () for an encoder
    demo: bool = False  # the small model for trying things out
    # Percentiles p5, p50 and p95 of the cosine between texts that have nothing to do with each other, with
    # this pooling; None: not measured.
    unrelated_cosine: dict[str, float] | None = None

    @property
    def is_bge_m3(self) -> bool:
        """Whether the weights have the shape of BGE-M3's; models fine-tuned from it have that too."""
        return (self.family, self.layers, self.width, self.vocabulary) == BGE_M3
