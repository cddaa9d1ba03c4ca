"""What passages cost compared with what must be computed anyway, as ratios of times taken in turns."""

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any

from app.engine.embeddings import Chunking
from app.engine.encoder import Encoder
from benchmarks.bench import say
from benchmarks.parallel import Book

PLAIN, LATE = 1.05, 1.1  # at most
SIZE, OVERLAP = 256, 32
TIMES = (1, 4)  # the document's length, in multiples of what the model reads at once


def costs(encoder: Encoder, books: dict[str, Book], rounds: int) -> list[dict[str, Any]]:
    """Compare cutting a document with its passages in one call, and late chunking with one pass over it.

    If the document is longer than what the model reads at once, one pass reads its parts in a batch.
    """
    text = max((document.text for document in books["suras"]["en"]), key=len)
    rows = []
    for times in TIMES:
        parts = pieces(encoder, text, times)
        document = "".join(parts)
        cut = encoder.encode([document], chunk=Chunking(SIZE, OVERLAP)).passages
        passages = [document[passage.start : passage.stop] for passage in cut]
        calls: dict[str, Callable[[], Any]] = {
            "passages": partial(encoder.encode, passages, truncate=None),
            "plain": partial(encoder.encode, [document], chunk=Chunking(SIZE, OVERLAP)),
            "one pass": partial(encoder.encode, parts, truncate=None),
            "late": partial(encoder.encode, [document], chunk=Chunking(SIZE, OVERLAP, late=True)),
        }
        seconds = in_turns(calls, rounds)
        for way, beside, most in (("plain", "passages", PLAIN), ("late", "one pass", LATE)):
            ratios, of_processors = (
                [left[kind] / right[kind] for left, right in zip(seconds[way], seconds[beside], strict=True)]
                for kind in range(2)
            )
            row = {
                "of": f"{way}, {times} x {encoder.info.max_tokens} tokens",
                "beside": beside,
                "passages": len(passages),
                "seconds": round(median(by_clock for by_clock, _ in seconds[way]), 3),
                "ratio": round(median(ratios), 3),
                "rounds": [round(min(ratios), 3), round(max(ratios), 3)],
                "ratio_of_processor_time": round(median(of_processors), 3),
                "at_most": most,
            }
            say(str(row))
            rows.append(row)
    return rows


def pieces(encoder: Encoder, text: str, count: int) -> list[str]:
    """The start of a text in pieces that have almost as many tokens as the model reads at once."""
    step = encoder.info.max_tokens - 4  # two special tokens, and two more if a word is cut
    text = text[: 8 * count * encoder.info.max_tokens]
    starts = [token.start for token in encoder.tokenize([text], special=False, most=len(text))[0]]
    ends = [starts[number * step] or 0 for number in range(count + 1)]
    return [text[start:stop] for start, stop in pairwise(ends)]


def in_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """The wall-clock and CPU seconds of each call in each round; the order changes.

    The first round does not count.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name in calls if turn % 2 else reversed(calls):
            start, spent = time.perf_counter(), time.process_time()
            calls[name]()
            seconds[name].append((time.perf_counter() - start, time.process_time() - spent))
    return {name: each[1:] for name, each in seconds.items()}
