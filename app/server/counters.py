"""A folder for the counters of all workers, with disk space reserved for them.

A worker's counters are files mapped into its memory. If one had to grow on a full disk, that would kill the
process. The files' names come from prometheus-client, which reads PROMETHEUS_MULTIPROC_DIR on import.
"""

import contextlib
import fcntl
import glob
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Callable

FILES = ("counter", "histogram", "gauge_liveall", "gauge_livemax", "gauge_livesum")
BYTES = 1 << 18
PREFIX = "embed-metrics-"
OLD_SECONDS = 60.0  # a younger folder may not be locked yet: that comes right after it is made


def make_room(place: str | None, warn: Callable[[str], None]) -> None:
    """Reserve disk space for this process's counters, in this server's folder or in a new one.

    A new folder is made within the one that the variable names at first, else within `place`.
    """
    asked = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    for within in [asked] * bool(asked) + [place, None]:
        folder = within
        try:
            if not (folder and os.path.basename(folder).startswith(PREFIX)):
                folder = _new_folder(within)
            for name in FILES:
                _take_room(os.path.join(folder, f"{name}_{os.getpid()}.db"))
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            return
        except OSError as error:
            warn(f"no room for metrics in {folder or within}, which holds their counters: {error.strerror}")
    raise SystemExit("no room for metrics anywhere: free some, or point PROMETHEUS_MULTIPROC_DIR to some")


def _new_folder(place: str | None) -> str:
    """Make a folder that is locked while a process of this server runs; remove those of ended servers."""
    for old in glob.glob(os.path.join(glob.escape(place or tempfile.gettempdir()), f"{PREFIX}*")):
        with contextlib.suppress(OSError):
            if os.stat(old).st_mtime < time.time() - OLD_SECONDS:
                _lock(old)
                shutil.rmtree(old)
    folder = tempfile.mkdtemp(prefix=PREFIX, dir=place)
    _lock(folder)
    return folder


def _lock(folder: str) -> None:
    """Lock a folder until the last process that has inherited the lock ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise


def _take_room(path: str) -> None:
    if os.path.exists(path):
        return
    try:
        with open(path, "wb") as file:
            file.write(bytes(BYTES))
    except OSError:
        if os.path.exists(path):
            os.unlink(path)  # half a file would break /metrics
        raise


def retire(pid: int) -> None:
    """Keep the counts of a worker that has ended, in files no larger than they need."""
    from prometheus_client.mmap_dict import MmapedDict
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid)  # type: ignore[no-untyped-call]
    for path in glob.glob(os.path.join(glob.escape(os.environ["PROMETHEUS_MULTIPROC_DIR"]), f"*_{pid}.db")):
        with contextlib.suppress(Exception), open(path, "r+b") as file:  # it may have died while it wrote
            counts = MmapedDict.read_all_values_from_file(path)  # type: ignore[no-untyped-call]
            if any(value for _, value, *_ in counts):
                file.truncate(*struct.unpack("i", file.read(4)))  # how many bytes are used
            else:  # such as for a worker that could not load, and is tried again and again
                os.unlink(path)


def remove(master: int) -> None:
    """Remove the folder, at the end of the process that made it."""
    if os.getpid() == master:
        shutil.rmtree(os.environ.get("PROMETHEUS_MULTIPROC_DIR", ""), ignore_errors=True)
