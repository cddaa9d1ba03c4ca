"""Room in memory, of which requests together take no more than there is."""

import threading


class Room:
    """Counts what is held, in whatever unit its user chooses."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._lock = threading.Lock()

    def hold(self, size: int) -> bool:
        """Count so much more, if there is room."""
        with self._lock:
            room = self._held + size <= self._most
            self._held += size * room
            return room

    def release(self, size: int) -> None:
        with self._lock:
            self._held -= size
