"""Is the process alive, is its encoder ready."""

from typing import Any

from flask import Blueprint

from app.api.context import encoder
from app.api.docs import documented
from app.api.schemas import ErrorResponse, HealthResponse
from app.engine.errors import NotLoaded

bp = Blueprint("health", __name__)

READY = {200: (HealthResponse, "the encoder is loaded"), 503: (ErrorResponse, "not loaded yet")}


@bp.get("/healthz")
@documented("Is the process alive", responses={200: (HealthResponse, "it is")}, tag="Health")
def alive() -> dict[str, Any]:
    return {"status": "ok"}


@bp.get("/readyz")
@documented("Is the encoder loaded", responses=READY, tag="Health")
def ready() -> dict[str, Any]:
    if not encoder().ready:
        raise NotLoaded("the model is not loaded yet")
    return {"status": "ok"}


@bp.get("/health")
@documented("Is the encoder loaded (the name other servers use)", responses=READY, tag="Health")
def health() -> dict[str, Any]:
    return ready()
