"""The encoder without HTTP, told on its standard input what to encode; the server's settings apply.

A line in is a list of calls, each a list of texts; a line out their tokens and seconds, one by one.
"""

import json
import sys
import time
from typing import Any

from app import create_app


def main() -> None:
    encoder: Any = create_app().extensions["encoder"]
    encoder.load()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        tokens, seconds = 0, []
        for texts in json.loads(line):
            start = time.perf_counter()
            found = encoder.encode(texts)
            seconds.append(time.perf_counter() - start)
            tokens += sum(found.token_counts)
        print(json.dumps({"tokens": tokens, "seconds": seconds}), flush=True)
    encoder.close()


if __name__ == "__main__":
    main()
