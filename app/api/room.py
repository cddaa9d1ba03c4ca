"""A bound on the memory that all requests hold together."""

import ctypes
import threading
from functools import partial

from flask import Flask, Response, current_app, g

TRIMMED_BYTES = 1 << 24


class Room:
    """Counts the bytes that requests hold.

    The C library keeps freed memory for later; once most bytes have been released, it is told to return it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._peak = 0  # since memory was last returned
        self._lock = threading.Lock()

    def hold(self, size: int) -> bool:
        """Count this many more bytes; False if they do not fit."""
        with self._lock:
            room = self._held + size <= self._most
            self._held += size * room
            self._peak = max(self._peak, self._held)
            return room

    def release(self, size: int) -> None:
        with self._lock:
            self._held -= size
            trim = self._peak > TRIMMED_BYTES and self._held < self._peak / 8
            if trim:
                self._peak = self._held
        if trim:
            _trim()


def _trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    if trim:
        trim(0)


def open_room(app: Flask, name: str, most: int) -> None:
    """Give the application a room; a request's share of it is in `g`, under the same name, until it ends."""
    room = app.extensions[name] = Room(most)
    app.teardown_request(lambda _: room.release(g.pop(name, 0)))


def until_sent(response: Response, name: str) -> Response:
    """Count this request's share of a room until its answer is sent, or its client has gone."""
    room: Room = current_app.extensions[name]
    response.call_on_close(partial(room.release, g.pop(name, 0)))
    return response
