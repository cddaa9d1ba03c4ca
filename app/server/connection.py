"""A client's connection: a socket with deadlines, and the part of the request's head that has arrived."""

import errno
import select
import socket
import ssl
import threading
import time
from typing import Any

from gunicorn.http.errors import ParseException
from gunicorn.http.wsgi import FileWrapper
from gunicorn.workers.gthread import TConn

# How long a client may keep us waiting while it receives its answer, plus a second for each SEND_RATE bytes
# that it has received. A slow line is served; a client that takes a byte now and then is not.
SEND_SECONDS = 60.0
SEND_RATE = 1 << 18
SEND_BYTES = 1 << 16  # at a time
# How many threads receive at the same time: hundreds of them would leave no processor to the loop.
RECEIVING = threading.BoundedSemaphore(2)


class Client(socket.socket):
    """A socket that ends, as if the client had closed it, once the client keeps us waiting too long."""

    deadline = 0.0  # by time.monotonic(), when what is being read must have arrived
    late = False  # whether something missed the deadline
    _sent = 0
    _waited = 0.0  # seconds spent waiting for the client to take what was sent

    def arrived(self, size: int) -> bytes | None:
        """What has arrived, without waiting: None if nothing has yet, empty if nothing ever will."""
        self.setblocking(False)
        try:
            return super().recv(size)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError:
            return b""

    def recv(self, size: int, flags: int = 0) -> bytes:
        while True:
            with RECEIVING:
                arrived = self.arrived(size)
            if arrived is not None:
                return arrived
            readable = select.poll()
            readable.register(self, select.POLLIN)
            left = self.deadline - time.monotonic()
            if left <= 0 or not readable.poll(1e3 * left):
                self.late = True
                return b""

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send everything; raises BrokenPipeError once the client has used up its time."""
        rest = memoryview(data)
        while rest:
            left = SEND_SECONDS + self._sent / SEND_RATE - self._waited
            start = time.monotonic()
            self.settimeout(max(left, 0.001))
            try:
                sent = self.send(rest[:SEND_BYTES], flags)
            except TimeoutError:
                raise BrokenPipeError(errno.EPIPE, "the client takes its answer too slowly") from None
            self._waited += time.monotonic() - start
            self._sent += sent
            rest = rest[sent:]

    def gone(self) -> bool:
        """Whether the client has closed its side.

        A client that closed only its sending half looks like one that left, and counts as gone, as it does
        for most proxies.
        """
        closed = select.poll()
        closed.register(self, getattr(select, "POLLRDHUP", 0))  # Linux only; POLLHUP is always reported
        return bool(closed.poll(0))


class TLSClient(Client, ssl.SSLSocket):  # type: ignore[misc]
    """The same with TLS, if Gunicorn itself does TLS."""


class Input:
    """A request's body. Malformed chunks raise OSError, as if the client had gone."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def read(self, size: int) -> bytes:
        try:
            return bytes(self._body.read(size))
        except ParseException as error:
            raise OSError("the chunks are malformed") from error


class File(FileWrapper):  # type: ignore[misc]
    """A file to send, in larger pieces than asked for: each piece has to wait for the interpreter's lock."""

    def __init__(self, file: Any, size: int = 0) -> None:
        super().__init__(file, max(size, SEND_BYTES))


class Connection(TConn):  # type: ignore[misc]
    """A connection as the loop sees it."""

    deadline = 0.0  # by time.monotonic(), while the loop watches it
    closing = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.head = bytearray()  # the part of the request's head that has arrived
        self.initialized = self.data_ready = True  # the loop reads, so no thread need wait for anything

    def is_whole(self, looked: int) -> bool:
        """Whether the head ends after `looked`, or has a bare line feed there, which the parser rejects."""
        lines = self.head.count(b"\r\n", max(0, looked - 1))
        return lines != self.head.count(b"\n", looked) or self.head.find(b"\r\n\r\n", max(0, looked - 3)) >= 0
