"""Work that one call at a time does, such as a step of tokenising: many at once would take all memory."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_SECONDS = 0.1  # between two looks at the caller of who waits


class Turn:
    """A lock that is waited for with an eye on the caller."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, pause: Callable[[], None]) -> Iterator[None]:
        """`pause` is called before and while waiting; it may raise."""
        pause()
        while not self._lock.acquire(timeout=LOOK_SECONDS):
            pause()
        try:
            yield
        finally:
            self._lock.release()
