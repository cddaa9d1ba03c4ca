"""Does a query wait while a corpus is sent, over HTTP: `python -m benchmarks.lanes`, `make bench-lanes`.

Clients send a corpus in requests of 32 passages; meanwhile one client asks a query every few seconds. This
prints the query's latency alone and with 1, 8 and 32 such clients, and the corpus's tokens per second with
and without queries; the same with a first-in, first-out queue; four clients that ask without pause; and what
requests of 30 MB do to a query before they reach the queue.
"""

import argparse
import contextlib
import http.client
import json
import select
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from app.engine.checkpoint import read_checkpoint
from benchmarks import load, machine, services
from benchmarks.bench import say
from benchmarks.checkpoint import DEFAULT
from benchmarks.corpus import Corpus
from benchmarks.ingestion import Ingestion, Meter
from benchmarks.load import Request, requests_of
from benchmarks.services import Server

CROWDS = (1, 8, 32)
PASSAGES = 32  # in a request
EVERY = 3.0  # seconds from one query to the next, as a person asks
ASKERS = 4  # clients that ask without pause
TIMES_P95, TIMES_MAX = 3.0, 5.0  # how long a query may take with a corpus, in multiples of its time alone
KEPT, KEPT_BESIDE_ASKERS = 0.95, 0.5  # the share of the corpus's tokens per second that must remain
BODY = 30 * 10**6


def ask(server: Server, queries: list[Request], every: float, seconds: float) -> list[float]:
    """Seconds of each query, sent `every` seconds, or after the last answer if that is later."""
    found = []
    end = time.monotonic() + seconds
    for query in queries:
        start = time.monotonic()
        if start >= end:
            break
        found.append(load.post(server.port, query)[0])
        time.sleep(max(0.0, start + every - time.monotonic()))
    return found


def figures(latencies: list[float]) -> dict[str, Any]:
    return {
        "queries": len(latencies),
        "p50_ms": round(1e3 * statistics.median(latencies), 1),
        "p95_ms": round(1e3 * load.percentile(latencies, 0.95), 1),
        "max_ms": round(1e3 * max(latencies), 1),
    }


class Lanes:
    """The measurements of one server, one after another."""

    def __init__(self, server: Server, corpus: Corpus, seconds: float) -> None:
        self._server, self._seconds = server, seconds
        self._queries = requests_of(corpus, corpus.texts("short", 4000, seed=1), 1)
        self._passages = requests_of(corpus, corpus.texts("mixed", 64 * PASSAGES, seed=2), PASSAGES)

    def alone(self) -> dict[str, Any]:
        ask(self._server, self._queries[-5:], 0.0, 60)
        return figures(ask(self._server, self._queries[:60], 0.2, 60))

    def beside(self, clients: int) -> dict[str, Any]:
        """A query now and then during a corpus from this many clients; and the corpus without queries."""
        with Ingestion(self._server.port, self._passages, clients):
            time.sleep(5)
            without = [self._rate()]
            with Meter(self._server) as meter:
                asked = ask(self._server, self._queries, EVERY, 2 * self._seconds)
            without.append(self._rate())
        kept = meter.rate()
        return figures(asked) | {
            "corpus_tokens_per_second": {
                "without": round(statistics.mean(without), 1),
                "beside": round(kept, 1),
            },
            "corpus_kept": round(kept / statistics.mean(without), 3),
        }

    def askers(self, clients: int = 8) -> dict[str, Any]:
        """Four clients that ask one query after another, without pause, during a corpus."""
        asked: list[float] = []
        with Ingestion(self._server.port, self._passages, clients):
            time.sleep(5)
            without = self._rate()
            parts = [self._queries[number::ASKERS] for number in range(ASKERS)]
            with Meter(self._server) as meter, ThreadPoolExecutor(ASKERS) as pool:
                for found in pool.map(lambda part: ask(self._server, part, 0.0, self._seconds), parts):
                    asked.extend(found)
        kept = meter.rate()
        return figures(asked) | {"corpus_kept": round(kept / without, 3)}

    def _rate(self) -> float:
        with Meter(self._server) as meter:
            time.sleep(self._seconds)
        return meter.rate()

    def bodies(self) -> dict[str, Any]:
        """A query while one client sends 30 MB a second, in one costly form after another."""
        return {name: self._beside_bodies(make()) for name, make in BODIES.items()}

    def _beside_bodies(self, body: bytes) -> dict[str, Any]:
        stop = threading.Event()
        statuses: list[int] = []

        def send() -> None:
            while not stop.is_set():
                due = time.monotonic() + 1
                connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=load.PATIENCE)
                with contextlib.suppress(OSError, http.client.HTTPException, TimeoutError):
                    connection.request("POST", "/api/embed", body, {"Content-Type": "application/json"})
                    while not stop.is_set() and not _readable(connection):
                        pass
                    if not stop.is_set():
                        answer = connection.getresponse()
                        statuses.append(answer.status)
                        while answer.read(1 << 16):
                            pass
                connection.close()
                stop.wait(due - time.monotonic())

        thread = threading.Thread(target=send)
        thread.start()
        time.sleep(1)
        found = figures(ask(self._server, self._queries[:60], 0.3, 30))
        stop.set()
        thread.join()
        return found | {"body_mb": round(len(body) / 1e6, 1), "answers": statuses[:5]}


def _readable(connection: http.client.HTTPConnection) -> bool:
    return bool(select.select([connection.sock], [], [], 0.1)[0])


def _texts_body() -> bytes:
    text = "a few words of a text that is as long as texts are, and one after the other "
    each = (text * (BODY // 2000 // len(text) + 1))[: BODY // 2000]
    return json.dumps({"input": [f"{number} {each}" for number in range(1990)]}).encode()


def _escaped_body() -> bytes:
    each = "什么是机器学习？" * (BODY // 100 // 48)
    return json.dumps({"more": [each] * 100}).encode()  # it has no input, so it is refused once it is parsed


def _numbers_body() -> bytes:
    return json.dumps({"more": [7] * (BODY // 3)}).encode()


def _answer_body() -> bytes:
    """A small body with a large answer: about 23 MB."""
    return json.dumps({"input": ["a"] * 2048}).encode()


BODIES: dict[str, Callable[[], bytes]] = {
    "tokenising": _texts_body,
    "parsing text in escapes": _escaped_body,
    "parsing numbers": _numbers_body,
    "writing the answer": _answer_body,
}


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the server ends too
    report = run(options)
    workers = f"-{options.workers}-workers" if options.workers > 1 else ""
    machine.conclude(report, f"lanes-{options.precision}{workers}", options.save)


def run(options: argparse.Namespace) -> dict[str, Any]:
    model = options.model.resolve()
    corpus = Corpus(model / "tokenizer.json", read_checkpoint(model).max_tokens)
    report = machine.describe() | {
        "model": model.name,
        "workers": options.workers,
        "query_every_seconds": EVERY,
    }
    with served(model, options) as server:
        report["engine"], report["precision"] = server.running() or ("", "")
        lanes = Lanes(server, corpus, options.seconds)
        report["alone"] = alone = lanes.alone()
        say(f"a query alone: {alone}")
        report["beside"] = {}
        for clients in options.clients:
            report["beside"][clients] = found = lanes.beside(clients)
            say(f"beside {clients} clients: {found}")
        report["askers"] = found = lanes.askers()
        say(f"{ASKERS} clients that ask without pause: {found}")
        if not options.no_bodies:
            report["bodies"] = found = lanes.bodies()
            say(f"beside large requests: {found}")
    if not options.no_fifo:
        report["first_in_first_out"] = {}
        with served(model, options, "benchmarks.fifo:app") as server:
            lanes = Lanes(server, corpus, options.seconds / 2)  # a query may take minutes in this queue
            for clients in options.clients:
                report["first_in_first_out"][clients] = found = lanes.beside(clients)
                say(f"first in, first out, beside {clients} clients: {found}")
    return report | {"broken": broken(report)}


@contextlib.contextmanager
def served(model: Path, options: argparse.Namespace, app: str = "wsgi:app") -> Iterator[Server]:
    environ = services.our_environ(model, services.ENGINE, options.precision)
    flags = ["--workers", str(options.workers), app]
    with Server(flags, environ | {"EMBED_REQUEST_TIMEOUT": "3600"}) as server:
        yield server


def broken(report: dict[str, Any]) -> list[str]:
    """The promises that the figures break."""
    alone = report["alone"]["p50_ms"]
    found = []
    for clients, row in report["beside"].items():
        if row["p95_ms"] > TIMES_P95 * alone or row["max_ms"] > TIMES_MAX * alone:
            found.append(f"a query waited beside {clients} clients")
        if row["corpus_kept"] < KEPT:
            found.append(f"{clients} clients' corpus lost more than a twentieth")
    if report["askers"]["corpus_kept"] < KEPT_BESIDE_ASKERS:
        found.append("queries without pause took more than half")
    for name, row in report.get("bodies", {}).items():
        if row["p95_ms"] > TIMES_P95 * alone or row["max_ms"] > TIMES_MAX * alone:
            found.append(f"a query waited for {name}")
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="a model folder (%(default)s)")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--clients", type=int, nargs="+", default=CROWDS, help="that send a corpus (%(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=45, help="of each measurement of the corpus alone")
    parser.add_argument("--no-fifo", action="store_true", help="not the same first in, first out")
    parser.add_argument("--no-bodies", action="store_true", help="not what large requests do to a query")
    parser.add_argument("--save", action="store_true", help="keep the figures under benchmarks/results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
