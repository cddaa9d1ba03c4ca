"""The socket of one connection, with the time that its client has."""

import socket
import ssl
import time
from typing import Any

# A client may keep us waiting for so long while it takes its answer, and a second more for each SEND_RATE
# bytes that it has taken: a slow line is served, one that takes a byte now and then is not.
SEND_SECONDS = 60.0
SEND_RATE = 1 << 18
SEND_BYTES = 1 << 16  # at a time


class Client(socket.socket):
    """A connection that ends, as if the client had closed it, where the client keeps us waiting too long."""

    deadline = 0.0  # by time.monotonic(), until when what is read now must be there
    late = False  # whether it was not
    _sent = 0
    _waited = 0.0  # seconds, for what was sent to be taken

    def arrived(self, size: int) -> bytes | None:
        """Without waiting, what is there: None if nothing is yet, empty if nothing will ever be."""
        self.setblocking(False)
        try:
            return super().recv(size)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError:
            return b""

    def recv(self, size: int, flags: int = 0) -> bytes:
        left = self.deadline - time.monotonic()
        if left > 0:
            self.settimeout(left)
            try:
                return super().recv(size, flags)
            except TimeoutError:
                pass
        self.late = True
        return b""

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Raises BrokenPipeError where the client has used up its time."""
        rest = memoryview(data)
        while rest:
            left = SEND_SECONDS + self._sent / SEND_RATE - self._waited
            start = time.monotonic()
            self.settimeout(max(left, 0.001))
            try:
                sent = self.send(rest[:SEND_BYTES], flags)
            except TimeoutError:
                raise BrokenPipeError("the client takes its answer too slowly") from None
            self._waited += time.monotonic() - start
            self._sent += sent
            rest = rest[sent:]

    def gone(self) -> bool:
        """Whether the client has closed its side.

        One that only closed its sending half cannot be told from one that left, and counts as gone, as it
        does for most proxies.
        """
        self.setblocking(False)
        try:
            return socket.socket.recv(self, 1, socket.MSG_PEEK) == b""  # past TLS, which takes no flags
        except BlockingIOError:
            return False
        except OSError:
            return True


class TLSClient(Client, ssl.SSLSocket):  # type: ignore[misc]
    """The same under TLS, where Gunicorn itself does that."""
