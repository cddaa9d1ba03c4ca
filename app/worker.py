"""Gunicorn's threaded worker, without a thread or the accepting loop ever waiting for a slow client.

Gunicorn's own gives every connection a thread before it has sent a byte, lets a thread wait for the rest of
a head or a body without end, and closes in its accepting loop, for up to two seconds, until the client does
so too. Here the loop watches connections that have not sent their head yet, and those that are closing;
a thread gets a connection with its whole head, and reads its body up to a deadline.
"""

import contextlib
import errno
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections import OrderedDict
from concurrent.futures import Future
from functools import partial
from selectors import EVENT_READ
from typing import Any, NoReturn

from gunicorn.arbiter import Arbiter
from gunicorn.workers.gthread import TConn, ThreadWorker

HEAD_SECONDS = 10.0  # from the connection to the end of its head
BODY_SECONDS = 120.0  # to the end of its body: 32 MiB on a slow line
SEND_SECONDS = 60.0  # without a byte of the answer taken
CLOSE_SECONDS = 2.0  # from the answer's end to the client's own close
RETRY_SECONDS = 5.0  # between two attempts to load
HEAD_BYTES = 1 << 15  # a longer head is for the parser to refuse
SPARE_FILES = 256  # what a worker may open besides connections


class Client(socket.socket):
    """A connection that ends, as if the client had closed it, where its request is not there in time."""

    deadline = 0.0
    late = False

    def recv(self, size: int, flags: int = 0) -> bytes:
        if flags:  # a look, that does not wait
            return super().recv(size, flags)
        left = self.deadline - time.monotonic()
        if left > 0:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(left))
            with contextlib.suppress(BlockingIOError):
                return super().recv(size)
        self.late = True
        return b""

    def sendall(self, data: Any, flags: int = 0) -> None:
        try:
            super().sendall(data, flags)
        except BlockingIOError as error:  # none of it was taken within SEND_SECONDS: nobody is there
            raise BrokenPipeError(errno.EPIPE, "the client reads no more") from error


class Worker(ThreadWorker):  # type: ignore[misc]
    """Each connection is in one of three places: waiting for its head, with a thread, or closing.

    The first and the last take none of the worker's places: each adds one for itself.

    On a reload Gunicorn starts as many new workers as there are, and tells all old ones to stop at once.
    Here they take turns, so that there is never none to accept: an old one goes on until it is relieved,
    a new one loads when the one before it has gone, and relieves the next. One that cannot load relieves
    nobody.
    """

    def hangs(self) -> bool:
        """Whether this process will never answer again; the hooks know how to tell."""
        return False

    def join(self, arbiter: Any, retired: mmap.mmap) -> None:
        """In the new process: find one's place. `retired` holds the age of the last worker to be replaced."""
        self.retired = retired
        self.told = 0
        last = self._last_retired
        old = [(worker.age, pid) for pid, worker in arbiter.WORKERS.items() if worker.age <= last]
        pids = [pid for _, pid in sorted(old, reverse=True)]  # the youngest may not have loaded yet
        self.place = self.age - last - 1
        self.before, self.after = pids[self.place : self.place + 1], pids[self.place + 1 : self.place + 2]
        if self.place == self.cfg.workers - 1:
            self.after = pids[self.place + 1 :]
        elif self.place >= self.cfg.workers:  # in the place of one that could not load
            self.before, self.after = [], pids

    @property
    def _last_retired(self) -> int:
        return int.from_bytes(self.retired[:8], "big")

    def await_turn(self) -> None:
        """Until the worker whose place this one takes has gone, or the reload has taken too long."""
        if self.place == 0:
            _relieve(self.before)
        end = time.monotonic() + self.cfg.graceful_timeout
        while (left := [pid for pid in self.before if _runs(pid)]) and time.monotonic() < end:
            time.sleep(0.05)
        self.after += left  # nobody has relieved them: who should have has died

    def take_over(self) -> None:
        """Now this one serves: the next may go."""
        _relieve(self.after)

    def give_up(self) -> NoReturn:
        """End a process that cannot load.

        At the server's start that ends the server. Later there are others, which go on, and it is tried
        again.
        """
        if self.place >= self.cfg.workers:
            time.sleep(RETRY_SECONDS)
        elif not self._last_retired:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        sys.exit(1)

    def load_wsgi(self) -> None:
        try:
            super().load_wsgi()
        except Exception:
            self.log.exception("the application cannot be loaded")
            self.give_up()

    def notify(self) -> None:
        """Tell the arbiter that all is well; a worker that does not is replaced after `timeout`."""
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
        """The first SIGTERM of a reload is no reason yet."""
        last = self._last_retired
        if self.age <= last != self.told:
            self.told = last
            return
        super().handle_exit(sig, frame)

    def init_process(self) -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        with contextlib.suppress(OSError, ValueError):  # macOS calls it unlimited and refuses to set that
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.most_watched = max(1, files - self.cfg.threads - SPARE_FILES)
        self.busy = 0  # requests with a thread
        # From so many on they are surplus, and what waits for the encoder is refused: health checks do not.
        self.most_busy = max(1, self.cfg.threads - max(1, self.cfg.threads // 16))
        # In the order of their deadlines.
        self.heads: OrderedDict[TConn, float] = OrderedDict()
        self.closing: OrderedDict[TConn, float] = OrderedDict()
        super().init_process()

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
        connection.surplus = self.busy >= self.most_busy
        connection.sock.deadline = time.monotonic() + BODY_SECONDS
        with contextlib.suppress(OSError):  # macOS: it is gone already
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(SEND_SECONDS))
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
            if connection.seen < len(head) < HEAD_BYTES and head[:1].isalpha() and b"\r\n\r\n" not in head:
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
            refused = self.refusal(head, self.busy >= self.most_busy)
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


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6) or 1)
