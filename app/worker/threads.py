"""The threads that requests get."""

from concurrent.futures import ThreadPoolExecutor


class Threads(ThreadPoolExecutor):
    """A pool that makes do with the threads it has where the system gives no more."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._without = 0  # items that got no thread of their own

    def _adjust_thread_count(self) -> None:
        # An item that is done counts as an idle thread. Of these there is none behind.
        while self._without and self._idle_semaphore.acquire(timeout=0):
            self._without -= 1
        try:
            super()._adjust_thread_count()
        except RuntimeError:
            if not self._threads:
                raise
            self._without += 1
