"""Twenty times the load that the server can handle, sent whether it answers or not."""

import argparse
import http.client
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from app.engine.checkpoint import read_checkpoint
from benchmarks import load, machine, services
from benchmarks.bench import say
from benchmarks.checkpoint import DEFAULT
from benchmarks.corpus import Corpus
from benchmarks.load import Request, requests_of
from benchmarks.services import Server
from benchmarks.soak import apart, resident_mib

TIMES = 20
CLOSED_CLIENTS = 16
WARM_SECONDS = 10
HEALTH_SECONDS = 0.1  # between two checks
KEPT, HEALTH_MS, MEMORY_GROWTH = 0.9, 100.0, 1.5


class Crowd:
    """What clients see, counted while they run."""

    def __init__(self, server: Server, requests: list[Request]) -> None:
        self._port, self._requests = server.port, requests
        self.answers: list[tuple[float, int]] = []  # the time and the tokens of each
        self.refusals: list[float] = []  # seconds of each
        self.errors: Counter[str] = Counter()

    def send(self, number: int, _due: float = 0.0) -> None:
        request = self._requests[number % len(self._requests)]
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=load.PATIENCE)
        start = time.monotonic()
        try:
            connection.request("POST", "/api/embed", request.body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            self.errors[type(error).__name__] += 1
            return
        finally:
            connection.close()
        now = time.monotonic()
        if response.status == 200:
            self.answers.append((now, sum(request.tokens)))
        elif response.status == 503 and response.headers["Retry-After"]:
            self.refusals.append(now - start)
        else:
            self.errors[f"status {response.status}"] += 1

    def rates(self, start: float, end: float) -> tuple[float, float]:
        """Tokens and answers per second between two times."""
        inside = [tokens for when, tokens in self.answers if start <= when < end]
        return sum(inside) / (end - start), len(inside) / (end - start)


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the server ends too
    report = run(options)
    machine.conclude(report, f"overload-{options.texts}", options.save)


def run(options: argparse.Namespace) -> dict[str, Any]:
    model = options.model.resolve()
    corpus = Corpus(model / "tokenizer.json", read_checkpoint(model).max_tokens)
    requests = requests_of(corpus, corpus.texts(options.texts, 2000, seed=0), 1)
    report = machine.describe() | {"model": model.name, "texts": options.texts, "times": TIMES}
    with apart() as processors:
        server = services.ours({"EMBED_MODEL_PATH": str(model)})
    with server:
        report["engine"], report["precision"] = server.running() or ("", "")
        report["server_processors"] = processors
        peak, rate = at_capacity(server, requests, options.seconds)
        say(f"capacity {peak:.0f} tokens/s, {rate:.1f} requests/s; {TIMES} times that from now")
        report |= overloaded(server, requests, peak, rate, options.seconds)
    promises = {
        "throughput fell": report["kept"] >= KEPT,
        "health checks were slow": report["health_ms"]["p99"] <= HEALTH_MS,
        "memory grew": report["memory_mib"]["highest"] <= MEMORY_GROWTH * report["memory_mib"]["before"],
        "there were errors": not report["errors"],
    }
    return report | {"broken": [what for what, kept in promises.items() if not kept]}


def at_capacity(server: Server, requests: list[Request], seconds: float) -> tuple[float, float]:
    """Tokens and answers per second if each client waits for its answer before it sends again."""
    crowd = Crowd(server, requests)
    start = time.monotonic() + WARM_SECONDS
    load.closed_loop(crowd.send, CLOSED_CLIENTS, WARM_SECONDS + seconds)
    return crowd.rates(start, start + seconds)


def overloaded(
    server: Server, requests: list[Request], peak: float, rate: float, seconds: float
) -> dict[str, Any]:
    """The same at TIMES the rate, while health checks and memory are watched."""
    crowd = Crowd(server, requests)
    before = resident_mib(server)
    health: list[float] = []
    memory: list[float] = []
    start = time.monotonic() + WARM_SECONDS
    end = start + seconds

    def watch() -> None:
        while time.monotonic() < end:
            time.sleep(HEALTH_SECONDS)
            begin = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            connection.request("GET", "/healthz")
            assert connection.getresponse().status == 200
            connection.close()
            memory.append(resident_mib(server))
            if begin > start:
                health.append(1e3 * (time.monotonic() - begin))

    watcher = threading.Thread(target=watch)
    watcher.start()
    sent = load.open_loop(crowd.send, TIMES * rate, end - time.monotonic())
    watcher.join()
    tokens, _ = crowd.rates(start, end)
    return {
        "tokens_per_second": {"at_capacity": round(peak, 1), "overloaded": round(tokens, 1)},
        "kept": round(tokens / peak, 3),
        "requests_per_second": {
            "at_capacity": round(rate, 1),
            "sent": round(len(sent) / (seconds + WARM_SECONDS), 1),
        },
        "answered": len(crowd.answers),
        "refused": len(crowd.refusals),
        "refused_ms": percentiles([1e3 * seconds for seconds in crowd.refusals]),
        "errors": dict(crowd.errors),
        "health_ms": percentiles(health),
        "memory_mib": {"before": round(before), "highest": round(max(memory))},
    }


def percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{share}": round(load.percentile(values, share / 100), 1) for share in (50, 99, 100)}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="a model folder (%(default)s)")
    parser.add_argument("--texts", choices=("short", "mixed"), default="mixed", help="one in each request")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--save", action="store_true", help="keep the figures under benchmarks/results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
