"""Load in a closed loop, where clients wait for answers before they send again, or in an open loop."""

import http.client
import json
import math
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from benchmarks.corpus import Corpus

PATIENCE = 1800  # seconds for one answer
IN_FLIGHT = 512  # threads that send; a request that finds none free is sent late, and its wait counts

Sent = TypeVar("Sent")


class WrongAnswer(Exception):
    """A service did not do the work that is timed."""


@dataclass(frozen=True)
class Request:
    """The texts of one call, with their token counts and a body made before the clock runs."""

    texts: list[str]
    tokens: list[int]
    body: bytes


def requests_of(corpus: Corpus, texts: list[str], each: int) -> list[Request]:
    """Split texts into requests of `each` texts."""
    return [
        Request(part, [corpus.tokens(text) for text in part], json.dumps({"input": part}).encode())
        for part in (texts[start : start + each] for start in range(0, len(texts), each))
    ]


def post(port: int, request: Request, path: str = "/api/embed") -> tuple[float, bytes]:
    """Send a request over its own connection; returns the seconds and the body of the answer."""
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        headers = {"Content-Type": "application/json", "Connection": "close"}
        connection.request("POST", path, request.body, headers)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise WrongAnswer(f"status {response.status}: {body[:300].decode(errors='replace')}")
    return time.perf_counter() - start, body


def vectors(request: Request, body: bytes) -> list[list[float]]:
    """The vectors of an answer; raises WrongAnswer unless it is complete and has one for each text."""
    answer = json.loads(body)
    if len(answer["embeddings"]) != len(request.texts):
        raise WrongAnswer(f"{len(answer['embeddings'])} vectors for {len(request.texts)} texts")
    check_tokens(answer["prompt_eval_count"], [request])
    return answer["embeddings"]


def check_tokens(counted: int, requests: list[Request]) -> None:
    tokens = sum(sum(request.tokens) for request in requests)
    if counted != tokens:
        raise WrongAnswer(f"the texts have {tokens} tokens, {counted} were computed")


def measure(port: int, requests: list[Request], clients: int) -> dict[str, Any]:
    """Send all requests from this many clients at a time; answers are checked after the clock stops."""
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda request: post(port, request), requests))
    seconds = time.perf_counter() - start
    for request, (_, body) in zip(requests, answers, strict=True):
        vectors(request, body)
    return figures(requests, seconds, [latency for latency, _ in answers])


def closed_loop(send: Callable[[int], object], clients: int, seconds: float) -> None:
    """Call `send` from this many clients for this long; each calls again when its last call has ended.

    `send` gets a number that no other call has.
    """
    end = time.monotonic() + seconds

    def client(number: int) -> None:
        while time.monotonic() < end:
            send(number)
            number += clients

    with ThreadPoolExecutor(clients) as pool:
        for _ in pool.map(client, range(clients)):
            pass


def open_loop(send: Callable[[int, float], Sent], rate: float, seconds: float, seed: int = 0) -> list[Sent]:
    """Call `send` at random moments, `rate` of them a second, however long earlier calls take.

    `send` gets its number and the time.monotonic() at which it was due, so a late start counts as waiting.
    """
    chance = random.Random(seed)
    calls = []
    due = time.monotonic()
    end = due + seconds
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        while due < end:
            time.sleep(max(0.0, due - time.monotonic()))
            calls.append(pool.submit(send, len(calls), due))
            due += chance.expovariate(rate)
        return [call.result() for call in calls]


def percentile(values: list[float], share: float) -> float:
    """The value that this share of them does not exceed; NaN if there are none."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else math.nan


def figures(requests: list[Request], seconds: float, latencies: list[float]) -> dict[str, Any]:
    """What is kept of one measurement."""
    tokens = sum(sum(request.tokens) for request in requests)
    return {
        "texts": sum(len(request.texts) for request in requests),
        "tokens": tokens,
        "tokens_squared": sum(count**2 for request in requests for count in request.tokens),
        "seconds": round(seconds, 3),
        "tokens_per_second": round(tokens / seconds, 2),
        "p50_ms": round(1e3 * statistics.median(latencies), 2),
        "p95_ms": round(1e3 * percentile(latencies, 0.95), 2),
    }
