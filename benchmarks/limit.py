"""What the processors can do at most: multiplication in GFLOP/s, and reading memory in GB/s.

    python -m benchmarks.limit THREADS fp32 bf16 int8

Products are the size of a layer's. Each kind is tried in every way that PyTorch has, because which is the
fastest depends on the processor; the best time of the best way counts.
"""

import json
import sys
import time
from collections.abc import Callable

import torch

ROWS, INNER, COLUMNS = 1024, 1024, 4096  # tokens of a batch, width, width of the feed-forward part
ARRAY = 2**28  # floats: 1 GiB, which fits into no cache
SECONDS = 1.0  # for each way

Way = Callable[[], object]


def floats(dtype: torch.dtype) -> list[Way]:
    """The product of MKL or oneDNN, as PyTorch chooses, and that of oneDNN with weights packed beforehand."""
    left, right = torch.rand(ROWS, INNER).to(dtype), torch.rand(COLUMNS, INNER).to(dtype)
    ways: list[Way] = [lambda: torch.matmul(left, right.t())]
    if torch.backends.mkldnn.is_available():
        packed = torch.ops.mkldnn._reorder_linear_weight(right, ROWS)
        ways.append(lambda: torch.ops.mkldnn._linear_pointwise(left, packed, None, "none", [], ""))
    return ways


def integers() -> list[Way]:
    """Signed by signed, and unsigned by signed with packed weights, which suits FBGEMM."""
    left, right = (
        torch.randint(-127, 128, shape, dtype=torch.int8) for shape in ((ROWS, INNER), (COLUMNS, INNER))
    )
    ways: list[Way] = [lambda: torch._int_mm(left, right.t())]
    scales, zeros = torch.full((COLUMNS,), 1 / 64), torch.zeros(COLUMNS, dtype=torch.long)
    weight = torch.quantize_per_channel(torch.rand(COLUMNS, INNER) - 0.5, scales, zeros, 0, torch.qint8)
    inputs = torch.quantize_per_tensor(torch.rand(ROWS, INNER), 1 / 127, 0, torch.quint8)
    for engine in {"fbgemm", "onednn"} & set(torch.backends.quantized.supported_engines):
        torch.backends.quantized.engine = engine  # it packs the weights, which remember it
        packed = torch.ops.quantized.linear_prepack(weight, None)
        ways.append(lambda packed=packed: torch.ops.quantized.linear(inputs, packed, 0.5, 128))
    return ways


KINDS: dict[str, Callable[[], list[Way]]] = {
    "fp32": lambda: floats(torch.float32),
    "bf16": lambda: floats(torch.bfloat16),
    "int8": integers,
}


def gflops(kind: str) -> float:
    """GFLOP/s of the fastest way."""
    return round(2 * ROWS * INNER * COLUMNS / min(map(seconds, KINDS[kind]())) / 1e9, 1)


def memory() -> float:
    """GB/s read by all threads together."""
    array = torch.ones(ARRAY)
    return round(array.nbytes / seconds(array.sum) / 1e9, 1)


def seconds(way: Way) -> float:
    """The best of as many tries as there is time for, at least two."""
    best = float("inf")
    way()  # the first one prepares what the others use
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        way()
        best = min(best, time.perf_counter() - start)
    return best


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps({"gflops": {kind: gflops(kind) for kind in sys.argv[2:]}, "memory_gb_per_s": memory()}))
