"""Gunicorn's threaded worker, whose loop never waits for a slow client, and whose threads only so long.

Gunicorn's own gives every connection a thread before it has sent a byte, lets a thread wait for the rest of
a head or a body without end, and closes in its accepting loop, for up to two seconds, until the client does
so too. Here the loop watches connections that have not sent their head yet, and those that are closing;
a thread gets a connection with its whole head, and reads its body up to a deadline.
"""

import contextlib
import errno
import resource
import signal
import socket
import sys
import time
from collections import OrderedDict
from concurrent.futures import Future
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from app.worker.client import Client, timeval
from app.worker.threads import Threads
from app.worker.turn import Turn

HEAD_SECONDS = 10.0  # from the connection to the end of its head
BODY_SECONDS = 120.0  # to the end of its body: 32 MiB on a slow line
SEND_SECONDS = 60.0  # without a byte of the answer taken
CLOSE_SECONDS = 2.0  # from the answer's end to the client's own close
HEAD_BYTES = 1 << 15  # a longer head is for the parser to refuse
SPARE_FILES = 256  # what a worker may open besides connections


class Worker(ThreadWorker):  # type: ignore[misc]
    """Each connection is in one of three places: waiting for its head, with a thread, or closing.

    The first and the last count for nothing in Gunicorn's limit of connections: each adds one to it.
    """

    turn: Turn  # the hooks set it

    def hangs(self) -> bool:
        """Whether this process will never answer again; the hooks know how to tell."""
        return False

    def broken(self) -> bool:
        """Whether it has nothing left to answer with; the hooks know how to tell."""
        return False

    def load_wsgi(self) -> None:
        try:
            super().load_wsgi()
        except Exception:
            self.log.exception("the application cannot be loaded")
            self.turn.give_up()

    def notify(self) -> None:
        """Tell the arbiter that all is well; a worker that does not is replaced after `timeout`."""
        if self.broken():
            self.alive = False
        if not self.hangs():
            super().notify()

    def refusal(self, head: bytes, surplus: bool) -> tuple[bytes, int] | None:
        """The whole answer to a request that is refused for its head alone, and the request's size.

        The hooks know which is; `surplus`: it would get one of the last threads.
        """
        return None

    def unreadable(self, error: Exception) -> bytes:
        """The whole answer to a request that could not be parsed; the hooks know its form."""
        return b""

    def handle_error(self, req: Any, client: Client, addr: Any, exc: Exception) -> None:
        """Answer as everywhere else, and log nothing of what came: it may be a key."""
        answer = self.unreadable(exc)
        if answer:
            with contextlib.suppress(OSError):
                client.sendall(answer)
        else:
            super().handle_error(req, client, addr, exc)

    def init_signals(self) -> None:
        super().init_signals()
        signal.signal(signal.SIGUSR2, super().handle_exit)

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self.turn.goes_on():
            return
        if not self.booted:  # to load may take minutes, and nothing was accepted
            sys.exit(0)
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: Any) -> None:
        # Gunicorn's own takes a lock of the pool, which this thread may hold already.
        super(ThreadWorker, self).handle_quit(sig, frame)

    def get_thread_pool(self) -> Threads:
        return Threads(self.cfg.threads)

    def init_process(self) -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        with contextlib.suppress(OSError, ValueError):  # macOS calls it unlimited and refuses to set that
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.most_watched = max(1, files - self.cfg.threads - SPARE_FILES)
        self.busy = 0  # requests with a thread
        # From so many on they are surplus: what has a body is refused, health checks are not.
        self.most_busy: int = max(1, self.cfg.threads - max(1, self.cfg.threads // 16))
        # In the order of their deadlines.
        self.heads: OrderedDict[TConn, float] = OrderedDict()
        self.closing: OrderedDict[TConn, float] = OrderedDict()
        super().init_process()

    @property
    def crowded(self) -> bool:
        """Whether only the threads for health checks are left."""
        return self.busy >= self.most_busy

    def accept(self, listener: Any) -> None:
        try:
            accepted, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._give_up_oldest()
            elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                raise
            return
        client = Client(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        connection = TConn(self.cfg, client, address, listener.getsockname())
        connection.seen = 0
        head = self._head(connection)  # most often it is there
        if head is not None:
            self._begin(connection, head)
            return
        self._watch(connection, self.heads, HEAD_SECONDS, self._on_head)

    def enqueue_req(self, connection: TConn) -> None:
        connection.surplus = self.crowded
        connection.sock.deadline = time.monotonic() + BODY_SECONDS
        with contextlib.suppress(OSError):  # macOS: it is gone already
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(SEND_SECONDS))
        self.busy += 1
        super().enqueue_req(connection)

    def handle_request(self, req: Any, connection: TConn) -> Any:
        connection.sock.surplus = connection.surplus  # for the application; with TLS it is another socket
        return super().handle_request(req, connection)

    def finish_request(self, connection: TConn, done: "Future[Any]") -> None:
        """Of a connection that is kept alive, where the operator asks for that, as Gunicorn does."""
        self.busy -= 1
        if not done.cancelled() and not done.exception() and done.result():
            super().finish_request(connection, done)
            return
        self.nr_conns -= 1
        self._end(connection)

    def _end(self, connection: TConn) -> None:
        """All is sent: wait for the client to close."""
        connection.sock.deadline = time.monotonic() + CLOSE_SECONDS
        try:
            connection.sock.shutdown(socket.SHUT_WR)
            connection.sock.setblocking(False)
        except OSError:
            connection.close()
            return
        # Closed with bytes unread it would be reset, and the end of the answer lost with it.
        self._watch(connection, self.closing, CLOSE_SECONDS, self._on_closing)

    def murder_pending(self) -> None:
        """What has not sent its head, or not closed, in time."""
        now = time.monotonic()
        for place in (self.heads, self.closing):
            while place and (oldest := next(iter(place))) and place[oldest] <= now:
                self._forget(oldest, place)
                oldest.close()

    def _on_head(self, connection: TConn, _client: Client) -> None:
        if connection not in self.heads:  # it gave way to one that came in the same turn of the loop
            return
        head = self._head(connection)
        if head is not None:
            self._forget(connection, self.heads)
            self._begin(connection, head)

    def _head(self, connection: TConn) -> bytes | None:
        """What a request begins with: None while more of it is to come, nothing where none ever will."""
        client = connection.sock
        try:
            head: bytes = client.recv(HEAD_BYTES, socket.MSG_PEEK)
            whole = self.cfg.is_ssl or b"\r\n\r\n" in head or len(head) >= HEAD_BYTES
            if not whole and len(head) > connection.seen:
                # Readable again with the next byte, or when the client has closed.
                connection.seen = len(head)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(head) + 1)
                return None
            if connection.seen:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            return head
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _begin(self, connection: TConn, head: bytes) -> None:
        """Refuse a request, or give it a thread."""
        if not head:
            connection.close()
            return
        refused = None
        try:
            refused = self.refusal(head, self.crowded)
        except Exception:  # the loop must go on
            self.log.exception("a refusal failed")
        if refused:
            self._refuse(connection, *refused, len(head))
            return
        self.nr_conns += 1
        connection.data_ready = True
        self.enqueue_req(connection)

    def _refuse(self, connection: TConn, answer: bytes, size: int, arrived: int) -> None:
        with contextlib.suppress(OSError):
            connection.sock.send(answer)
            if size == arrived and len(connection.sock.recv(size + 1, socket.MSG_DONTWAIT)) == size:
                connection.close()  # nothing is left unread
                return
        self._end(connection)

    def _on_closing(self, connection: TConn, client: Client) -> None:
        if connection not in self.closing:
            return
        with contextlib.suppress(OSError):
            if client.recv(1 << 16):
                return
        self._forget(connection, self.closing)
        connection.close()

    def _watch(self, connection: TConn, place: dict[TConn, float], seconds: float, then: Any) -> None:
        if len(self.heads) + len(self.closing) >= self.most_watched:
            self._give_up_oldest()
        place[connection] = time.monotonic() + seconds
        self.nr_conns += 1
        self.worker_connections += 1
        self.poller.register(connection.sock, EVENT_READ, partial(then, connection))

    def _forget(self, connection: TConn, place: dict[TConn, float]) -> None:
        del place[connection]
        self.nr_conns -= 1
        self.worker_connections -= 1
        self.poller.unregister(connection.sock)

    def _give_up_oldest(self) -> None:
        place = self.closing or self.heads
        if place:
            oldest = next(iter(place))
            self._forget(oldest, place)
            oldest.close()
