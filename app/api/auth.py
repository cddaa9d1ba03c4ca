"""Authentication by API key, and which pages on other hosts may call. Health checks need no key."""

import hmac
import itertools
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from flask import Flask, current_app, request
from flask_cors import CORS
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

from app.api.protocol import UNAUTHORIZED, is_open
from app.config import ConfigError, Settings

log = logging.getLogger(__name__)

# Monitors and browsers ask for these before they have a key. The page asks its reader for the key.
ALWAYS_OPEN = {"health.alive", "health.ready", "health.health", "page.home", "page.static"}
DOCS = ("docs.", "flasgger.")
# Headers that hold only a key, as gateways and Azure's clients send them.
BARE = ("HTTP_X_API_KEY", "HTTP_API_KEY")
LOOK_SECONDS = 1.0  # how often to check whether the file of keys has changed


class Keys:
    """The keys that open the server; a file of them that changes is read again.

    If it cannot be used then, the log says why, and the previous keys stay in effect.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._state = self._file_state()  # read before the keys, or a change in between would be missed
        self._keys = [key.encode() for key in settings.keys]
        self._looked = time.monotonic()

    def __bool__(self) -> bool:
        """Whether there are any keys; without them the server is open to everybody."""
        return bool(self._keys)

    def match(self, environ: Mapping[str, Any]) -> bool:
        """Whether a request brings one of the keys."""
        self._look()
        scheme, _, key = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        brought = [key if scheme.lower() == "bearer" else "", *(environ.get(name, "") for name in BARE)]
        # Compare every pair in constant time, so that timing does not reveal how much of a key is right.
        pairs = itertools.product((one.strip().encode() for one in brought), self._keys)
        return sum([hmac.compare_digest(one, key) for one, key in pairs]) > 0

    def _look(self) -> None:
        now = time.monotonic()
        if self._settings.api_keys_file is None or now < self._looked + LOOK_SECONDS:
            return
        self._looked = now
        state = self._file_state()
        if state == self._state:
            return
        self._state = state
        try:
            self._keys = [key.encode() for key in self._settings.keys]
            log.info("the file of keys has changed: %d keys open the server", len(self._keys))
        except ConfigError as error:
            log.error("%s; the previous keys stay in effect", error)

    def _file_state(self) -> tuple[int, int, int] | None:
        """Differs once the file changes, or a link on its path, as Kubernetes changes mounted secrets."""
        if self._settings.api_keys_file is None:
            return None
        try:
            state = os.stat(self._settings.api_keys_file)
        except OSError:
            return None
        return (
            state.st_ctime_ns,
            state.st_ino,
            state.st_size,
        )  # ctime, because a change of permissions counts too


def init_app(app: Flask) -> None:
    """Require a key of every request if there are keys; send CORS headers to the origins that are set."""
    found: Settings = app.config["EMBED"]
    if found.cors_origins:
        exposed = ["X-Request-ID", "X-Embedding-Space", "Retry-After", "Server-Timing", "Warning"]
        CORS(app, origins=list(found.cors_origins), expose_headers=exposed)
    if app.extensions["keys"]:
        app.before_request(_check)


def _check() -> None:
    # A browser's preflight request brings no key.
    if request.method == "OPTIONS" or opens(current_app, request.endpoint or ""):
        return
    keys: Keys = current_app.extensions["keys"]
    if not keys.match(request.environ):
        raise Unauthorized(
            UNAUTHORIZED.sentence,
            www_authenticate=WWWAuthenticate("bearer", {"realm": "embeddings"}),
        )


def opens(app: Flask, endpoint: str) -> bool:
    """Whether this endpoint answers without a key even if there are keys."""
    if endpoint in ALWAYS_OPEN or is_open(app, endpoint):
        return True
    opened = app.config["EMBED"].open_paths
    return ("docs" in opened and endpoint.startswith(DOCS)) or (
        "metrics" in opened and endpoint == "metrics.metrics"
    )
