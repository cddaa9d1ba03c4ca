"""Both models without HTTP: python -m benchmarks.inprocess_rerank ENCODER RERANKER PRECISION.

An input line has pairs, or a query, passages and how many of them the cross-encoder reads. An output line has
the scores, the seconds that they took, and the memory of the process in MiB.
"""

import json
import logging
import math
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, get_args

from app.engine.embeddings import CROSS_ENCODER, Precision
from app.engine.encoder import Encoder, EncoderSettings
from app.engine.reranker import Reranker, RerankerSettings


def memory() -> dict[str, int]:
    """MiB of this process: resident now (anonymous and mapped from files) and at most so far."""
    status = Path("/proc/self/status").read_text()
    found = re.findall(r"^(VmRSS|VmHWM|RssAnon|RssFile):\s+(\d+) kB", status, re.MULTILINE)
    return {name: int(size) // 1024 for name, size in found}


def answer(reranker: Reranker, asked: dict[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    if "top" in asked:
        found = reranker.rank(asked["query"], asked["passages"], asked["top"])
    else:
        found = reranker.score([(query, passage) for query, passage in asked["pairs"]])
    seconds = time.perf_counter() - start
    scores = {
        name: [None if math.isnan(score) else score for score in column.tolist()]
        for name, column in found.by_name.items()
    }
    return {
        "seconds": seconds,
        "scores": scores.pop(CROSS_ENCODER),
        "first": scores,  # of the first stage
        "tokens": found.tokens,
        "memory": memory(),
    }


def main() -> None:
    logging.basicConfig(level=logging.INFO)  # logs what was loaded to standard error
    encoder_path, reranker_path, asked = sys.argv[1:]
    precision: Precision = next(known for known in get_args(Precision) if known == asked)
    threads = int(os.environ["OMP_NUM_THREADS"])
    encoder = Encoder(EncoderSettings(Path(encoder_path), threads=threads, precision=precision))
    reranker = Reranker(RerankerSettings(Path(reranker_path)), encoder)
    encoder.load()
    reranker.load()
    print(json.dumps({"memory": memory(), "precision": reranker.info.precision}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(reranker, json.loads(line))), flush=True)
    encoder.close()
    reranker.close()


if __name__ == "__main__":
    main()
