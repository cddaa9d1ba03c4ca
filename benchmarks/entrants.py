"""What `benchmarks.peers` measures, and with which texts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ours:
    precision: str  # EMBED_PRECISION
    int8: bool  # whether it is compared with the peers in int8, or with the others


@dataclass(frozen=True)
class Peer:
    label: str
    int8: bool
    batches: tuple[int, ...] = ()  # batch sizes to try; none if it gets the whole call
    can_be_held: bool = True  # whether it can be limited to an instruction set, see isa.py


@dataclass(frozen=True)
class Profile:
    """What one round asks for: a number of calls, each with a number of texts."""

    name: str
    texts: str  # of the corpus
    each: int
    calls: int
    quick: int  # texts in a call of a quick run


OURS = {
    "ours": Ours("auto", int8=False),
    "ours-fp32": Ours("fp32", int8=False),
    "ours-w8a16": Ours("w8a16", int8=False),
    "ours-int8": Ours("int8", int8=True),
}
# The order matters: the first export makes the folder for the others.
PEERS = {
    "openvino": Peer("sentence-transformers, openvino", int8=False, batches=(1, 32)),
    "openvino-int8": Peer("sentence-transformers, openvino-int8", int8=True, batches=(1, 32)),
    "onnx-int8": Peer("sentence-transformers, onnx-int8", int8=True, batches=(1,), can_be_held=False),
    "ctranslate2": Peer("CTranslate2, fp32", int8=False),
    "ctranslate2-int8": Peer("CTranslate2, int8", int8=True),
}
# The result is a latency for the single query, and tokens per second for the others.
PROFILES = [
    Profile("passages", "mixed", 64, calls=1, quick=16),
    Profile("queries", "short", 16, calls=4, quick=16),
    Profile("documents", "document", 2, calls=1, quick=1),
    Profile("query", "short", 1, calls=20, quick=1),
]
