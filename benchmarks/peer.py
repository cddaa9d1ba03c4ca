"""A peer by itself, in the peers' environment: `benchmarks.peers` starts it.

    python -m benchmarks.peer export openvino models/bench models/bench-peers
    python -m benchmarks.peer run openvino models/bench-peers

Both write a line to standard output when they are done or ready. While it runs, an input line has calls, each
a list of texts, and the batch size; an output line has the tokens and seconds of each call, and vectors if
asked for.
"""

import contextlib
import importlib
import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np

PACKAGES = (
    *("sentence-transformers", "transformers", "torch", "openvino", "nncf", "onnxruntime"),
    *("optimum", "optimum-intel", "optimum-onnx", "ctranslate2"),
)


class Peer(Protocol):
    """The interface to each library."""

    def encode(self, texts: list[str], batch: int) -> np.ndarray:
        """The texts' vectors of length 1, (n, d)."""

    def tokens(self, texts: list[str]) -> int:
        """How many tokens it computes for the texts."""


def library(name: str) -> Any:
    """The module for the peer's library. Only that one is imported, because each takes seconds."""
    if name.startswith("ctranslate2"):
        return importlib.import_module("benchmarks.peer_ctranslate2")
    return importlib.import_module("benchmarks.peer_sentence_transformers")


def serve(peer: Peer) -> None:
    """Answer every line until there are no more."""
    for line in sys.stdin:
        asked = json.loads(line)
        tokens, seconds, vectors = 0, [], []
        for texts in asked["calls"]:
            start = time.perf_counter()
            found = peer.encode(texts, asked["batch"])
            seconds.append(time.perf_counter() - start)
            tokens += peer.tokens(texts)
            vectors += found.tolist() if asked.get("vectors") else []
        print(json.dumps({"tokens": tokens, "seconds": seconds, "vectors": vectors}), flush=True)


def main() -> None:
    verb, name, *folders = sys.argv[1:]
    peer: Peer | None = None
    with contextlib.redirect_stdout(sys.stderr):  # for progress bars
        if verb == "export":
            library(name).export(name, *map(Path, folders))
        else:
            peer = library(name).Encoder(name, Path(folders[0]))
    print(json.dumps({"versions": {name: importlib.metadata.version(name) for name in PACKAGES}}), flush=True)
    if peer:
        serve(peer)


if __name__ == "__main__":
    main()
