"""Room in memory, of which all requests together take no more than there is."""

import ctypes
import threading

TRIMMED_BYTES = 1 << 24


class Room:
    """Counts the bytes that are held.

    The C library keeps what is freed for later. So when most of what was held has gone, it gives that back.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._peak = 0  # since memory was given back
        self._lock = threading.Lock()

    def hold(self, size: int) -> bool:
        """Count so many more bytes, if there is room."""
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
