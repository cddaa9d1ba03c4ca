"""Lets one call at a time do some work, such as a tokenising step: many at once would take all memory."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_SECONDS = 0.1  # how often to check the caller of a call that waits


class Turn:
    """A lock; a call that waits for it keeps checking its caller."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, pause: Callable[[], None]) -> Iterator[None]:
        """Hold the lock; `pause` is called before and while waiting for it, and may raise."""
        pause()
        while not self._lock.acquire(timeout=LOOK_SECONDS):
            pause()
        try:
            yield
        finally:
            self._lock.release()
