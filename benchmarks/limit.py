"""What the processors multiply at most: the best of many products the size of a layer's, as GFLOP/s."""

import json
import sys
import time

import torch

ROWS, INNER, COLUMNS = 1024, 1024, 4096  # tokens of a batch, width, width of the feed-forward part
SECONDS = 2.0


def gflops(dtype: torch.dtype) -> float:
    left, right = torch.rand(ROWS, INNER).to(dtype), torch.rand(INNER, COLUMNS).to(dtype)
    out = torch.empty(ROWS, COLUMNS, dtype=dtype)
    best = float("inf")
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        torch.matmul(left, right, out=out)
        best = min(best, time.perf_counter() - start)
    return round(2 * ROWS * INNER * COLUMNS / best / 1e9, 1)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps({"fp32": gflops(torch.float32), "bf16": gflops(torch.bfloat16)}))
