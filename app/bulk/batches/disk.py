"""Atomic writes, and locks that are released when the process that holds them ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".new"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for the lock and hold it; it excludes threads as well as processes. Keep it short."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """True while holding the lock, False if somebody else holds it."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def create_locked(path: Path) -> BinaryIO:
    """A new file, locked until it is closed or the process has ended."""
    file = path.open("xb")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def remove_abandoned(folder: Path) -> None:
    """Remove files that `create_locked` made in a process that has ended."""
    for path in list(folder.iterdir()):
        # A living process may hold the lock, or may just have moved the file.
        with suppress(BlockingIOError, FileNotFoundError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file in a way that survives a power cut: either the old content is there or the new.

    Callers must not write the same file at once, as the temporary name is always the same.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Make sure that the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
