"""Health checks: is the process alive, is its encoder ready?"""

from typing import Any

from flask import Blueprint
from marshmallow import Schema, fields

from app.api.context import encoder
from app.api.documented import documented
from app.api.errors import Stuck
from app.api.protocol import ErrorResponse
from app.engine.embeddings import Load
from app.engine.errors import NotLoaded

bp = Blueprint("health", __name__)


class HealthResponse(Schema):
    status = fields.String(required=True, metadata={"example": "ok"})


# A slow processor needs about a minute for the longest text.
STUCK_SECONDS = 300
READY = {
    200: (HealthResponse, "the encoder is loaded and has room"),
    503: (ErrorResponse, "the model is not loaded, or the queue is full"),
}
ALIVE = {200: (HealthResponse, "it is"), 503: (ErrorResponse, "it hangs: start it again")}


def hangs(load: Load) -> str:
    """Why the encoder will never answer again; empty while it may."""
    if load.broken:
        return "the thread that computes has ended"
    if load.busy_seconds > STUCK_SECONDS:
        return f"one forward has taken {load.busy_seconds:.0f} s"
    return ""


@bp.get("/healthz")
@documented("Is the process alive", responses=ALIVE, tag="Health")
def alive() -> dict[str, Any]:
    if why := hangs(encoder().load_state):
        raise Stuck(why)
    return {"status": "ok"}


@bp.get("/readyz")
@documented("Can it take requests", responses=READY, tag="Health")
def ready() -> dict[str, Any]:
    load = encoder().load_state
    if not load.ready:
        raise NotLoaded("the model is not loaded")
    if "bulk" in load.full:
        raise NotLoaded("the queue is full")
    return {"status": "ok"}


@bp.get("/health")
@documented("Can it take requests (the name other servers use)", responses=READY, tag="Health")
def health() -> dict[str, Any]:
    return ready()
