"""A mix of clients: several protocols, requests of one short text to 64, some slow, some that hang up."""

import contextlib
import http.client
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks.corpus import Corpus

PATIENCE = 120  # seconds for one answer
HUNG_UP = "hung up"
# How many texts a request has, and how many tokens they have.
SIZES = {(1, 1): 50, (2, 8): 30, (9, 32): 15, (64, 64): 5}
LENGTHS = {"short": 45, "mixed": 45, "chunk": 10}
# What a client does: it sends everything at once, sends chunks with pauses, leaves in the middle of its body,
# or leaves while it should wait for its answer.
MANNERS = {"plain": 88, "chunked": 8, "leaves early": 2, "leaves late": 2}


@dataclass(frozen=True)
class Protocol:
    """A path, how to make its body from texts, and how to count the rows in its answer: one per text."""

    path: str
    body: Callable[[list[str]], dict[str, Any]]
    rows: Callable[[Any], int]
    single: bool = False


PROTOCOLS = [
    Protocol("/api/embed", lambda texts: {"input": texts}, lambda found: len(found["embeddings"])),
    Protocol(
        "/api/embed",
        lambda texts: {"input": texts, "encoding_format": "base64"},
        lambda found: len(found["embeddings"]),
    ),
    Protocol(
        "/v1/embeddings",
        lambda texts: {"input": texts, "model": "bge-m3"},
        lambda found: len(found["data"]),
    ),
    Protocol(
        "/v1/embeddings",
        lambda texts: {"input": texts, "model": "bge-m3", "encoding_format": "base64"},
        lambda found: len(found["data"]),
    ),
    Protocol(
        "/api/embeddings",
        lambda texts: {"prompt": texts[0], "model": "bge-m3"},
        lambda found: bool(found["embedding"]),
        single=True,
    ),
    Protocol("/embed", lambda texts: {"inputs": texts}, len),
    Protocol("/rerank", lambda texts: {"query": "what is this about", "texts": texts}, len),
]


@dataclass(frozen=True)
class Sample:
    """What became of one request."""

    due: float  # by time.monotonic()
    seconds: float
    tokens: int  # 0 if there was no answer
    outcome: str  # "" for a right answer


def send(port: int, corpus: Corpus, number: int, due: float) -> Sample:
    """Send the request with this number, the same in every run; its time counts from when it was due."""
    chance = random.Random(number)
    protocol, texts = _request(corpus, chance)
    body = orjson.dumps(protocol.body(texts))
    outcome = _exchange(port, protocol, len(texts), body, _one_of(MANNERS, chance), chance)
    tokens = sum(map(corpus.tokens, texts)) if not outcome else 0
    return Sample(due, time.monotonic() - due, tokens, outcome)


def mean_tokens(corpus: Corpus, numbers: range) -> float:
    """The mean number of tokens in the requests with these numbers."""
    texts = [text for number in numbers for text in _request(corpus, random.Random(number))[1]]
    return sum(map(corpus.tokens, texts)) / len(numbers)


def _request(corpus: Corpus, chance: random.Random) -> tuple[Protocol, list[str]]:
    protocol = chance.choice(PROTOCOLS)
    return protocol, _texts(corpus, chance, 1 if protocol.single else chance.randint(*_one_of(SIZES, chance)))


def _texts(corpus: Corpus, chance: random.Random, count: int) -> list[str]:
    return [corpus.texts(_one_of(LENGTHS, chance), 1, seed=chance.getrandbits(32))[0] for _ in range(count)]


def _one_of(weights: dict[Any, int], chance: random.Random) -> Any:
    return chance.choices(list(weights), list(weights.values()))[0]


def _exchange(
    port: int, protocol: Protocol, rows: int, body: bytes, manner: str, chance: random.Random
) -> str:
    """Send one request over its own connection; returns the outcome."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    headers = {"Content-Type": "application/json"}
    with contextlib.closing(connection):
        try:
            if manner == "leaves early":
                headers["Content-Length"] = str(len(body))
                connection.request("POST", protocol.path, body[: len(body) // 2], headers)
                return HUNG_UP
            if manner == "chunked":
                connection.request("POST", protocol.path, _pieces(body), headers, encode_chunked=True)
            else:
                connection.request("POST", protocol.path, body, headers)
            if manner == "leaves late":
                time.sleep(chance.uniform(0, 0.5))
                return HUNG_UP
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
    if response.status != 200:
        return f"status {response.status}"
    return "" if protocol.rows(orjson.loads(content)) == rows else "wrong answer"


def _pieces(body: bytes) -> Iterator[bytes]:
    middle = len(body) // 2
    yield body[:middle]
    time.sleep(0.05)
    yield body[middle:]
