"""Who may in: API keys, and pages on other hosts. Health needs neither."""

import hmac

from flask import Flask, request
from flask_cors import CORS
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

from app.api.context import settings

# What monitors and browsers ask before anybody has a key in hand. The page asks for the key itself.
ALWAYS_OPEN = {"health.alive", "health.ready", "health.health", "page.home", "page.static"}
DOCS = ("docs.", "flasgger.")


def init_app(app: Flask, keys: tuple[str, ...], origins: tuple[str, ...]) -> None:
    """Ask every request for one of `keys`, if there are any; answer pages on `origins`."""
    if origins:
        CORS(app, origins=list(origins), expose_headers=["X-Request-ID", "Retry-After", "Server-Timing"])
    known = app.extensions["keys"] = tuple(key.encode() for key in keys)
    if not known:
        return

    @app.before_request
    def check() -> None:
        # A browser asks by OPTIONS first and brings no key.
        if request.method == "OPTIONS" or _open(request.endpoint or ""):
            return
        if not may_enter(request.headers.get("Authorization", ""), known):
            raise Unauthorized(
                "a key is needed, and this is none: send Authorization: Bearer <key>",
                www_authenticate=WWWAuthenticate("bearer", {"realm": "embeddings"}),
            )


def may_enter(authorization: str, keys: tuple[bytes, ...]) -> bool:
    """Whether this header brings one of the keys."""
    scheme, _, key = authorization.partition(" ")
    brought = key.strip().encode() if scheme.lower() == "bearer" else b""
    # Each is compared, in a time that does not depend on where they differ.
    return sum([hmac.compare_digest(brought, one) for one in keys]) > 0


def _open(endpoint: str) -> bool:
    if endpoint in ALWAYS_OPEN:
        return True
    opened = settings().open_paths
    return ("docs" in opened and endpoint.startswith(DOCS)) or (
        "metrics" in opened and endpoint == "metrics.metrics"
    )
