"""Where the server listens: refused in one sentence where it cannot, said in one line once all is ready."""

import errno
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gunicorn.config import Config

INHERITED = ("GUNICORN_FD", "LISTEN_FDS")  # set where the sockets are handed down to this process
NEXT_PORTS = 20  # tried for one that is free
LOWEST_PORT = 1024  # those below need rights


class CannotListen(Exception):
    """An address cannot be had; the message says what to type."""


def check(cfg: Config) -> None:
    """Bind every address that Gunicorn is to listen at, and let go; CannotListen for the first that fails.

    Gunicorn itself would try five times and log two errors for each.
    """
    if any(name in os.environ for name in INHERITED):
        return
    for address in cfg.address:
        if isinstance(address, tuple):
            _check_port(*address[:2])
        elif isinstance(address, str):
            _check_path(Path(address).parent)


def _check_port(host: str, port: int) -> None:
    try:
        _bind(host, port)
    except OSError as error:
        raise CannotListen(_advice(host, port, error)) from error


def _bind(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tried.bind((host, port))
        tried.listen()


def _advice(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        why, least = f"port {port} is in use by another program", port + 1
    elif error.errno == errno.EACCES and port < LOWEST_PORT:
        why, least = f"port {port} needs rights that this user does not have", 8000
    else:
        return (
            f"this machine cannot listen at {_shown(host)}:{port} ({error.strerror}): "
            "use --bind 127.0.0.1:8000, or 0.0.0.0:8000 for other machines to reach it"
        )
    free = _free_port(host, least)
    return (
        f"{why}: choose another one with `make run PORT={free}`, `bge-m3 serve --port {free}` "
        f"or `gunicorn --bind {_shown(host)}:{free}`"
    )


def _free_port(host: str, least: int) -> int:
    for port in range(least, min(least + NEXT_PORTS, 65536)):
        try:
            _bind(host, port)
        except OSError:
            continue
        return port
    return least


def _check_path(folder: Path) -> None:
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        state = "is not writable for this user" if folder.is_dir() else "does not exist"
        raise CannotListen(f"no socket can be made in {folder}, which {state}: give --bind another place")


def addresses(listeners: Iterable[Any], tls: bool) -> str:
    """What to click on, or to connect to."""
    return ", ".join(dict.fromkeys(_address(one.getsockname(), tls) for one in listeners))


def _address(name: Any, tls: bool) -> str:
    if not isinstance(name, tuple):
        return f"unix:{os.fsdecode(name)}"
    host, port = name[:2]
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, str(host))
    return f"http{'s' * tls}://{_shown(here)}:{port}"


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Countdown:
    """Tells the last worker of those that a server starts with that all are ready.

    A pipe holds a byte for each of them: whoever is ready takes one, and the last byte is a zero.
    """

    def __init__(self, workers: int) -> None:
        self._taken, self._left = os.pipe()
        os.set_blocking(self._taken, False)
        os.write(self._left, bytes(min(255, left) for left in reversed(range(workers))))

    def is_last(self) -> bool:
        """Called once by each worker that is ready; a later one, which replaces another, finds no byte."""
        try:
            return os.read(self._taken, 1) == b"\0"
        except BlockingIOError:
            return False
