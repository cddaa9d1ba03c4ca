"""What the process asks of the application: app.server.worker.Service."""

import logging
from collections.abc import Callable

from flask import Flask

from app.api import tracing
from app.api.admission import Seats
from app.api.context import Encoder, Reranker
from app.api.errors import unread
from app.api.health import hangs
from app.api.metrics import announce
from app.api.protocol import registered
from app.api.request_log import HEADERS, record, request_id
from app.engine.errors import EngineError, NotExported
from app.folders import COMMAND, GET_MODEL

log = logging.getLogger(__name__)

NO_ENCODER = (
    f"%s. Run `{COMMAND} model download` for BGE-M3 or `{COMMAND} model demo` for the small demo model, "
    "or set EMBED_MODEL_PATH to a model folder"
)
NO_RERANKER = (
    f"%s. Run `{COMMAND} model download reranker` for bge-reranker-v2-m3, or set EMBED_RERANKER_PATH to a "
    "cross-encoder's folder, or leave it unset to serve none"
)
HEADS = {"dense": "dense", "sparse": "lexical", "colbert": "multi-vectors"}


class Service:
    """The application, as its process sees it."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._encoder: Encoder = app.extensions["encoder"]
        self._reranker: Reranker | None = app.extensions["reranker"]
        self._seats: Seats = app.extensions["seats"]
        self._ends: list[Callable[[], None]] = []
        self._refusals: dict[int, tuple[str, bytes]] = {}  # by status: the head but for its end, the body

    @property
    def threads(self) -> int:
        """How many requests can be answered at a time."""
        return self._seats.threads

    @threads.setter
    def threads(self, count: int) -> None:
        self._seats.threads = count

    def load(self) -> bool:
        """Load what is served; False, and a line in the log, if it cannot be loaded."""
        if not _loaded(self._encoder, NO_ENCODER):
            return False
        if self._reranker and not _loaded(self._reranker, NO_RERANKER):
            return False
        announce(self._app)
        for protocol in registered(self._app):
            if protocol.begin:
                try:
                    end = protocol.begin(self._app)
                except OSError as error:
                    log.critical("%s", error)
                    return False
                self._ends += [end] if end else []
        return True

    def close(self) -> None:
        for end in self._ends:
            end()
        if self._reranker:
            self._reranker.close()
        self._encoder.close()
        tracing.close(self._app)

    @property
    def about(self) -> str:
        """What is served, in a few words."""
        info, settings = self._encoder.info, self._app.config["EMBED"]
        outputs = [HEADS[output] for output in ("dense", *info.heads)]
        many = f"{', '.join(outputs[:-1])} and {outputs[-1]}" if outputs[1:] else "dense only"
        if info.demo:
            model = (
                f"demo model {settings.served_name}: {info.width} dimensions, {many}; {GET_MODEL} for BGE-M3"
            )
        else:
            model = (
                f"{settings.served_name}: {info.width} dimensions, {many}, "
                f"{info.pooling} pooling, {info.precision}"
            )
        return f"{model}; reranker {settings.reranker_served_name}" if self._reranker else model

    @property
    def broken(self) -> bool:
        return self._encoder.load_state.broken

    @property
    def hangs(self) -> bool:
        return bool(hangs(self._encoder.load_state))

    def refusal(self, status: int) -> bytes:
        """The whole answer to a request that is not read any further, which is counted and logged."""
        if status not in self._refusals:
            with self._app.test_request_context("/none"):  # nobody knows which protocol it was
                response = unread(status)
            response.headers.update(HEADERS | {"Connection": "close"})
            lines = [f"HTTP/1.1 {response.status}", *(f"{name}: {value}" for name, value in response.headers)]
            self._refusals[status] = "\r\n".join(lines), response.get_data()
        head, body = self._refusals[status]
        number = request_id("")
        record("other", "none", status, 0.0, number, self._encoder.load_state.waiting)
        return f"{head}\r\nX-Request-ID: {number}\r\n\r\n".encode() + body


def _loaded(model: Encoder | Reranker, advice: str) -> bool:
    try:
        model.load()
    except NotExported as error:
        log.critical("%s", error)
        return False
    except EngineError as error:
        log.critical(advice, error)
        return False
    except Exception:
        log.exception("the model cannot be loaded")
        return False
    return True
