"""The one call under every protocol: the name checked, the texts encoded, the vectors cut."""

import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace

from flask import Flask, current_app, request
from marshmallow import ValidationError

from app.api.context import encoder, settings
from app.api.errors import Busy, UnknownModel
from app.api.wire import cut, discard_body
from app.engine.embeddings import DENSE, HYBRID, Embeddings, Output, Pooling, Scores, Weights

# Names under which people already know the model, accepted whatever the folder is called.
ALIASES = ("bge-m3", "BAAI/bge-m3")
# Views with a body that do not wait for the encoder.
QUICK = {"ollama.show", "ollama.pull", "ollama.generate", "tei.tokenize"}


def init_app(app: Flask) -> None:
    app.before_request(_refuse_early)


def _refuse_early() -> None:
    """Where nothing more may wait, a body is not worth parsing, checking and tokenising."""
    if request.method != "POST" or request.endpoint is None or request.endpoint in QUICK:
        return
    if full(current_app):
        discard_body()
        raise Busy(encoder().drain_seconds)


def full(app: Flask) -> bool:
    """Whether nothing more may wait, in tokens or in requests."""
    places = _places(app)
    return app.extensions["encoder"].full or (places is not None and places.full)


def served_name(asked: str | None) -> str:
    """The name to answer with: the one that was asked for, if it means the model served here."""
    served = settings().served_name
    if asked is None:
        return served
    if asked.removesuffix(":latest") not in (served, *ALIASES, *settings().model_aliases):
        raise UnknownModel(asked, served)
    return asked


def encode(
    texts: list[str],
    *,
    dimensions: int | None = None,
    pooling: Pooling | None = None,
    outputs: Collection[Output] = DENSE,
    truncate: bool = True,
    unit: bool = True,
) -> Embeddings:
    """As Encoder.encode, with dense vectors of `dimensions` numbers; None or 0 keeps all.

    Without `unit` vectors keep the length that the model gave them.
    """
    if dimensions and dimensions > encoder().width:
        raise ValidationError(
            {"dimensions": [f"must be at most {encoder().width}, the width of this model's vectors"]}
        )
    with _admitted():
        found = encoder().encode(
            texts, pooling=pooling, outputs=outputs, truncate=truncate, gone=_client_gone()
        )
    if not unit:
        return replace(found, dense=(found.dense * found.lengths[:, None])[:, : dimensions or None])
    return replace(found, dense=cut(found.dense, dimensions))


def score(
    pairs: list[tuple[str, str]],
    weights: Weights = HYBRID,
    *,
    pooling: Pooling | None = None,
    truncate: bool = True,
) -> Scores:
    """As Encoder.score."""
    with _admitted():
        return encoder().score(pairs, weights, pooling=pooling, truncate=truncate, gone=_client_gone())


class Places:
    """How many requests may wait for the encoder at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._lock = threading.Lock()

    @property
    def full(self) -> bool:
        return self._taken >= self._most

    def enter(self) -> bool:
        """Take a place, if there is one."""
        with self._lock:
            free = self._taken < self._most
            self._taken += free
            return free

    def leave(self) -> None:
        with self._lock:
            self._taken -= 1


def limit_waiting(app: Flask, places: int) -> None:
    """Let so many requests wait for the encoder at a time; others get a 503 at once.

    Each waits in a thread of the server, and some threads must be left to answer health checks.
    """
    app.extensions["places"] = Places(places)


def _places(app: Flask) -> Places | None:
    return app.extensions.get("places")


@contextmanager
def _admitted() -> Iterator[None]:
    places = _places(current_app)
    if places is not None and not places.enter():
        raise Busy(encoder().drain_seconds)
    try:
        yield
    finally:
        if places is not None:
            places.leave()


def _client_gone() -> Callable[[], bool] | None:
    """Whether the client has closed its connection meanwhile, where the server lets us look.

    One that only closed its sending half cannot be told from one that left, and counts as gone, as
    it does for most proxies.
    """
    connection: socket.socket | None = request.environ.get("gunicorn.socket")
    if connection is None:
        return None

    def gone() -> bool:
        try:
            return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    return gone
