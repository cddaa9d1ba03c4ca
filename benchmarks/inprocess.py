"""The encoder without HTTP, told on its standard input what to encode; the server's settings apply.

An input line has calls, each a list of texts, and may name outputs. An output line has the tokens and seconds
of each call, and the dense vectors if the input asked for them.
"""

import json
import logging
import sys
import time
from typing import Any

from app import create_app


def main() -> None:
    logging.basicConfig(level=logging.INFO)  # logs what was loaded to standard error
    encoder: Any = create_app().extensions["encoder"]
    encoder.load()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        tokens, seconds, vectors = 0, [], []
        for texts in asked["calls"]:
            start = time.perf_counter()
            found = encoder.encode(texts, outputs=asked.get("outputs", ["dense"]))
            seconds.append(time.perf_counter() - start)
            tokens += sum(found.token_counts)
            vectors += found.dense.tolist() if asked.get("vectors") else []
        print(json.dumps({"tokens": tokens, "seconds": seconds, "vectors": vectors}), flush=True)
    encoder.close()


if __name__ == "__main__":
    main()
