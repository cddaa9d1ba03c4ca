"""The server under mixed clients at 80 % of its capacity, for an hour: `python -m benchmarks.soak`."""

import argparse
import contextlib
import json
import math
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.engine.checkpoint import read_checkpoint
from benchmarks import clients, load, machine, services
from benchmarks.bench import say
from benchmarks.clients import HUNG_UP, Sample
from benchmarks.corpus import Corpus
from benchmarks.services import Server

DEMO = services.ROOT / "models" / "multilingual-e5-small"
SHARE = 0.8
CLOSED_CLIENTS = 16
WARM_SECONDS, CAPACITY_SECONDS = 15, 60
MEMORY_GROWTH, P99_GROWTH = 1.05, 1.5
FIRST = 10_000_000  # number of the first request; no such number was used to measure the capacity


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the server ends too
    report = run(options.model.resolve(), options.minutes)
    print(json.dumps({name: report[name] for name in report if name != "windows"}, indent=1))
    if options.save:
        machine.save(report, "soak")
    sys.exit("; ".join(report["broken"]) or None)


def run(model: Path, minutes: float) -> dict[str, Any]:
    """Measure the capacity, then load the server and watch it."""
    corpus = Corpus(model / "tokenizer.json", read_checkpoint(model).max_tokens)
    report = machine.describe() | {"model": model.name, "minutes": minutes}
    with apart() as server_processors:
        server = services.ours({"EMBED_MODEL_PATH": str(model)})
    with server:
        report["engine"], report["precision"] = server.running() or ("", "")
        report["server_processors"] = server_processors
        capacity = measure_capacity(server, corpus)
        rate = SHARE * capacity / clients.mean_tokens(corpus, range(FIRST, FIRST + 3000))
        report |= {"tokens_per_second": round(capacity), "requests_per_second": round(rate, 2)}
        say(f"capacity {capacity:.0f} tokens/s; {rate:.2f} requests/s from now, {SHARE:.0%} of it")
        report |= watched(server, corpus, rate, 60 * minutes)
    return report


@contextlib.contextmanager
def apart() -> Iterator[list[int]]:
    """Processes started meanwhile get all processors except the last, which is kept for the clients."""
    processors = sorted(os.sched_getaffinity(0))
    server = processors[:-1] or processors
    os.sched_setaffinity(0, server)
    try:
        yield server
    finally:
        os.sched_setaffinity(0, processors[-1:])


def measure_capacity(server: Server, corpus: Corpus) -> float:
    """Tokens per second if each client waits for its answer before it sends again."""
    start = time.monotonic() + WARM_SECONDS
    end = start + CAPACITY_SECONDS
    samples: list[Sample] = []

    def send(number: int) -> None:
        samples.append(clients.send(server.port, corpus, number, time.monotonic()))

    load.closed_loop(send, CLOSED_CLIENTS, WARM_SECONDS + CAPACITY_SECONDS)
    counted = [sample for sample in samples if start <= sample.due + sample.seconds <= end]
    return sum(sample.tokens for sample in counted) / CAPACITY_SECONDS


def watched(server: Server, corpus: Corpus, rate: float, seconds: float) -> dict[str, Any]:
    """Load it at `rate` requests a second and say what was seen.

    Each third has the same requests at the same moments. With random ones, one third may have a tenth more
    work than another, which means twice the latency near the capacity.
    """
    workers = server.pids[1:]
    window = max(5.0, seconds / 60)
    memory: list[float] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(window):
            memory.append(resident_mib(server))
            say(f"{len(memory) * window / 60:.1f} minutes: {memory[-1]:.0f} MiB")

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.monotonic()
    try:
        parts = [
            load.open_loop(
                lambda number, due: clients.send(server.port, corpus, FIRST + number, due), rate, seconds / 3
            )
            for _ in range(3)
        ]
    finally:
        stop.set()
        watcher.join()

    samples = [sample for part in parts for sample in part]

    def between(begin: float, end: float) -> dict[str, Any]:
        return latencies([sample for sample in samples if begin <= sample.due - start < end])

    windows = [
        {"minute": round((part + 1) * window / 60, 2), "resident_mib": round(mib)}
        | between(part * window, (part + 1) * window)
        for part, mib in enumerate(memory[: round(seconds / window)])
    ]
    outcomes = Counter(sample.outcome for sample in samples)
    found: dict[str, Any] = {
        "requests": len(samples),
        "tokens": sum(sample.tokens for sample in samples),
        "hung_up": outcomes.pop(HUNG_UP, 0),
        "answered": outcomes.pop("", 0),
        "errors": dict(outcomes),
        "workers_replaced": len(set(workers) - set(server.pids)),
        "memory_mib": {
            "after_first_tenth": round(memory[max(0, len(memory) // 10 - 1)]),
            "end": round(memory[-1]),
            "highest": round(max(memory)),
        },
        "thirds": [latencies(part) for part in parts],
        "windows": windows,
    }
    return found | {"broken": broken(found)}


def broken(found: dict[str, Any]) -> list[str]:
    """The promises that the figures break."""
    memory, (_, middle, last) = found["memory_mib"], found["thirds"]
    promises = {
        "there were errors": not found["errors"] and not found["workers_replaced"],
        "memory grew": memory["end"] <= MEMORY_GROWTH * memory["after_first_tenth"],
        "p99 grew": last["p99_ms"] <= P99_GROWTH * middle["p99_ms"],
    }
    return [what for what, kept in promises.items() if not kept]


def latencies(samples: list[Sample]) -> dict[str, Any]:
    """Percentiles of the answered requests."""
    seconds = [sample.seconds for sample in samples if not sample.outcome] or [math.nan]
    return {
        "answered": sum(not sample.outcome for sample in samples),
        "p50_ms": round(1e3 * load.percentile(seconds, 0.5), 1),
        "p99_ms": round(1e3 * load.percentile(seconds, 0.99), 1),
    }


def resident_mib(server: Server) -> float:
    """The memory of all workers together; shared memory counts once per worker."""
    kib = 0
    for pid in server.pids[1:]:
        with contextlib.suppress(OSError, AttributeError):  # a worker that is just ending
            status = Path(f"/proc/{pid}/status").read_text()
            kib += int(re.search(r"^VmRSS:\s+(\d+)", status, re.MULTILINE)[1])  # type: ignore[index]
    return kib / 1024


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    default = Path(os.environ.get("EMBED_MODEL_PATH", "") or DEMO)
    parser.add_argument("--model", type=Path, default=default, help="a model folder (%(default)s)")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--save", action="store_true", help="keep the figures under benchmarks/results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
