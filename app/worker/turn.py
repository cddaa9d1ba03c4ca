"""Who goes and who comes on a reload."""

import contextlib
import mmap
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from gunicorn.arbiter import Arbiter

RETRY_SECONDS = 5.0  # between two attempts to load


class Turn:
    """When a new worker may load, and which of the old ones may go then.

    On a reload Gunicorn starts as many new workers as there are, and tells all old ones to stop at once.
    Here they take turns, so that there is never none to accept: an old one goes on until it is relieved,
    a new one loads when the one before it has gone, and relieves the next. One that cannot load relieves
    nobody.
    """

    def __init__(self, age: int, cfg: Any, workers: Mapping[int, Any], retired: mmap.mmap) -> None:
        """In the new process. `workers`: Gunicorn's own, by pid; `retired`: the age of the last old one."""
        self._age = age
        self._cfg = cfg
        self._retired = retired
        self._told = 0
        last = self._last_retired
        old = [(worker.age, pid) for pid, worker in workers.items() if worker.age <= last]
        pids = [pid for _, pid in sorted(old, reverse=True)]  # the youngest may not have loaded yet
        self.number = number = age - last - 1
        self._before, self._after = pids[number : number + 1], pids[number + 1 : number + 2]
        if number == cfg.workers - 1:
            self._after = pids[number + 1 :]
        elif number >= cfg.workers:  # in the place of one that could not load
            self._before, self._after = [], pids

    @property
    def _last_retired(self) -> int:
        return int.from_bytes(self._retired[:8], "big")

    def wait(self) -> None:
        """Until the worker whose place this one takes has gone, or the reload has taken too long."""
        if self.number == 0:
            _relieve(self._before)
        end = time.monotonic() + self._cfg.graceful_timeout
        while (left := [pid for pid in self._before if _runs(pid)]) and time.monotonic() < end:
            time.sleep(0.05)
        self._after += left  # nobody has relieved them: who should have has died

    def pass_on(self) -> None:
        """Now this one serves: the next may go."""
        _relieve(self._after)

    def give_up(self) -> NoReturn:
        """End a process that cannot load.

        At the server's start that ends the server. Later there are others, which go on, and it is tried
        again.
        """
        if self.number >= self._cfg.workers:
            time.sleep(RETRY_SECONDS)
        elif not self._last_retired:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        sys.exit(1)

    def goes_on(self) -> bool:
        """Whether a SIGTERM is no reason yet: the first of a reload is not, SIGUSR2 will say when."""
        last = self._last_retired
        first = self._age <= last != self._told
        self._told = last
        return first


def _relieve(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR2)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
