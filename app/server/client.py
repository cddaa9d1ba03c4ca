"""The socket of one connection, with the time that its client has."""

import contextlib
import errno
import socket
import struct
import time
from typing import Any


class Client(socket.socket):
    """A connection that ends, as if the client had closed it, where its request is not there in time."""

    deadline = 0.0
    late = False

    def recv(self, size: int, flags: int = 0) -> bytes:
        if flags:  # a look, that does not wait
            return super().recv(size, flags)
        left = self.deadline - time.monotonic()
        if left > 0:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(left))
            with contextlib.suppress(BlockingIOError):
                return super().recv(size)
        self.late = True
        return b""

    def sendall(self, data: Any, flags: int = 0) -> None:
        try:
            super().sendall(data, flags)
        except BlockingIOError as error:  # none of it was taken within SO_SNDTIMEO: nobody is there
            raise BrokenPipeError(errno.EPIPE, "the client reads no more") from error


def timeval(seconds: float) -> bytes:
    """For SO_RCVTIMEO and SO_SNDTIMEO."""
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6) or 1)
