"""A peer by itself, in the peers' environment: `benchmarks.peers` starts it.

    python -m benchmarks.peer export openvino models/bench models/bench-peers
    python -m benchmarks.peer run openvino models/bench-peers

Either says on a line of standard output when it is done or ready. While it runs, a line in has calls, each a
list of texts, and the batch size; a line out their tokens and seconds, one by one, and vectors if asked for.
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
    """What each library is made to offer."""

    def encode(self, texts: list[str], batch: int) -> np.ndarray:
        """Vectors of the texts, of length 1, (n, d)."""

    def tokens(self, texts: list[str]) -> int:
        """How many it computes for them."""


def library(name: str) -> Any:
    """The module that drives the peer's library. Only one is imported: they take seconds."""
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
