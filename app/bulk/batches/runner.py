"""The thread that runs the batches of a folder, in one of the processes that share it."""

import logging
import threading

from app.bulk.batches.disk import locked_if_free
from app.bulk.batches.errors import Unknown
from app.bulk.batches.store import Store
from app.bulk.batches.work import FIRST_WAIT, LONGEST_WAIT, Answer, BatchWork

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # how often to check for a batch, and whether another process has released the lock
STOP_SECONDS = 5.0  # how long to wait for the thread; an answer that ignores `gone` may take longer


class Runner:
    """Runs the batches, the oldest first and one at a time, while no other process does."""

    def __init__(self, store: Store, answer: Answer) -> None:
        self._store = store
        self._answer = answer
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)
        self._wait = FIRST_WAIT  # seconds until the next attempt after a failure
        self._troubled = False  # whether the last attempt failed

    def start(self) -> None:
        """Start the thread; call this once, and after the fork, because threads do not survive it."""
        self._thread.start()

    def stop(self) -> None:
        """Leave what is under way to the next runner; returns after STOP_SECONDS at the latest."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with locked_if_free(self._store.lock) as free:
                    if free:
                        self._store.sweep()
                        self._work()
                self._stopped.wait(LOOK_SECONDS)
            except Exception as error:
                self._report(error)
                self._stopped.wait(self._wait)
                self._wait = min(2 * self._wait, LONGEST_WAIT)

    def _work(self) -> None:
        while not self._stopped.is_set():
            if waiting := self._store.unfinished():
                self._work_on(waiting[0])
            else:
                self._stopped.wait(LOOK_SECONDS)

    def _work_on(self, id: str) -> None:
        try:
            work = BatchWork(self._store, id, self._answer, self._stopped)
        except Unknown:  # the process that queued it was killed, or the record is damaged
            self._store.clear(id)
            return
        if not self._troubled:
            work.announce()
        work.run()
        self._troubled = False
        self._wait = FIRST_WAIT

    def _report(self, error: Exception) -> None:
        """Log it; a failing disk only once until it works again."""
        if not isinstance(error, OSError):
            log.exception("the work on batches failed and will be retried")
        elif not self._troubled:
            log.error(
                "batches are paused and will be retried, their folder cannot be read or written: %s", error
            )
        self._troubled = True
