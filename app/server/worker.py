"""Gunicorn's threaded worker, with a loop that never waits for a slow client and threads with deadlines.

Gunicorn's own worker gives every connection a thread before it has sent a byte, and lets a thread wait
forever for the rest of a head or a body. When it closes a connection, its accept loop blocks for up to two
seconds until the client closes too. Here a connection is in one of three states: watched by the loop until
its head is complete, handled by a thread, and watched again until the client has closed. This describes
Gunicorn 27.0. Once a version's loop reads heads and waits for clients to close, with deadlines, most of this
file is unnecessary.
"""

import contextlib
import errno
import faulthandler
import heapq
import resource
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from selectors import EVENT_READ
from typing import Any, NoReturn, Protocol

from gunicorn.arbiter import Arbiter
from gunicorn.http import errors, get_parser
from gunicorn.sock import ssl_context
from gunicorn.workers.gthread import ThreadWorker

from app.server import listening
from app.server.connection import Client, Connection, File, Input, TLSClient

LOAD_SECONDS = 3600  # including an export; a worker that takes longer prints its stack and is replaced
RETRY_SECONDS = 5.0  # between two attempts to load
HEAD_SECONDS = 10.0  # from the connection to the end of its head
HEAD_BYTES = 1 << 15
HEADS_BYTES = 1 << 25  # of all incomplete heads together
BODY_SECONDS = 120.0  # from the head to the end of the body: 32 MiB on a slow line
CLOSE_SECONDS = 2.0  # from the answer's end to the client's own close
LOOK_SECONDS = 0.5  # how often to look for connections that have used up their time
LATE = 100  # how many of those are ended per turn of the loop
AT_ONCE = 32  # how many are closed at once when there are too many
SWITCH_SECONDS = 0.0005  # how long at most the loop waits for each thread that runs Python before it
SPARE_FILES = 256  # how many files a worker may open besides connections

# By the error of Gunicorn's parser; the first that fits counts. The first two are about our own answer.
STATUSES: dict[type[Exception], int] = {
    errors.InvalidResponseHeader: 500,
    errors.InvalidResponseHeaderName: 500,
    errors.LimitRequestLine: 414,
    errors.LimitRequestHeaders: 431,
    errors.ExpectationFailed: 417,
    errors.UnsupportedTransferCoding: 501,
    errors.ForbiddenProxyRequest: 403,
    errors.ParseException: 400,
}


class Service(Protocol):
    """What a worker needs from its application: a Flask app has one in its `extensions`."""

    threads: int  # how many requests can be answered at a time
    broken: bool  # it can no longer answer, so the worker must end
    hangs: bool  # it will never answer again
    about: str  # what it serves, in a few words, once it is loaded

    def load(self) -> bool:
        """Make ready to answer; if that fails, log why and return False."""

    def close(self) -> None: ...

    def refusal(self, status: int) -> bytes:
        """The whole answer, head and body, to a request that is not read any further."""


class Worker(ThreadWorker):  # type: ignore[misc]
    """`nr_conns`, which Gunicorn bounds by `worker_connections`, counts every open connection."""

    service: Service
    countdown: listening.Countdown
    loading = True
    application: Any
    wsgi: Any
    worker_connections: int

    def start(self, arbiter: Arbiter) -> None:
        """Called right after the fork: handle signals, and make sure that a hang while loading is noticed."""
        # A fork inherits the master's handlers, which would take these signals for orders to the master.
        # Signals that came since the fork are in the copy of the master's queue.
        ends = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
        for number in ends:
            signal.signal(number, lambda *_: sys.exit(0))
        while not arbiter.SIG_QUEUE.empty():
            if arbiter.SIG_QUEUE.get_nowait() in ends:
                sys.exit(0)
        self.countdown = arbiter.countdown
        try:
            faulthandler.dump_traceback_later(LOAD_SECONDS, exit=True)
        except Exception as error:
            self.log.warning("nobody will notice if this worker hangs while it loads: %s", error)
        if not self.cfg.accesslog:  # else its lines would be formatted, but never written
            self.log.access = lambda *_: None

    def init_process(self) -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        with contextlib.suppress(OSError, ValueError):  # macOS reports "unlimited", and refuses to set that
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES
        self.worker_connections = max(1, min(self.worker_connections, files))
        self.watched: set[Connection] = set()
        self.heads_bytes = 0  # of the watched connections
        self.looked = 0.0
        self.tls = ssl_context(self.cfg) if self.cfg.is_ssl else None
        if self.tls:
            self.tls.sslsocket_class = TLSClient
        self.cfg.set("keepalive", 0)  # a kept connection would stay with its worker, even a busy one
        sys.setswitchinterval(SWITCH_SECONDS)
        super().init_process()

    def load_wsgi(self) -> None:
        try:
            super().load_wsgi()
        except Exception:
            self.log.exception("the application cannot be loaded")
            self._give_up()
        self.application, self.wsgi = self.wsgi, self._answer
        self.service = self.application.extensions["service"]

    def load(self) -> None:
        """Make the application ready; no connection is accepted before."""
        loaded = self.service.load()
        if not self.alive:  # told to end, and something caught the SystemExit as a failure of its own
            sys.exit(0)
        if not loaded:
            self._give_up()
        self.loading = False
        faulthandler.cancel_dump_traceback_later()
        self._start_threads()
        if self.countdown.is_last():
            where = listening.addresses(self.sockets, bool(self.cfg.is_ssl))
            self.log.info("ready: %s  (%s)", where, self.service.about)

    def _start_threads(self) -> None:
        """Start all threads now: later, on busy processors, that would take long."""
        pool: ThreadPoolExecutor = self.tpool
        ready = threading.Event()
        try:
            for _ in range(self.cfg.threads):
                pool.submit(ready.wait)
        except RuntimeError:  # the system allows no more
            self.log.error("only %d threads of %d can be had", len(pool._threads), self.cfg.threads)
            if not pool._threads:
                self._give_up()
        ready.set()
        pool._max_workers = self.service.threads = len(pool._threads)

    def close(self) -> None:
        """Release what `load` made, if it got that far."""
        with contextlib.suppress(AttributeError):
            self.service.close()

    def _give_up(self) -> NoReturn:
        """End a process that cannot load, and the server with it if it has just started.

        If the server has run for a while, its other workers go on, and Gunicorn replaces this one.
        """
        if self.age <= self.cfg.workers:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        time.sleep(RETRY_SECONDS)
        sys.exit(1)

    def notify(self) -> None:
        """Tell the arbiter that all is well; a worker that does not is replaced after `timeout`."""
        if self.service.broken:
            self.alive = False
        if not self.service.hangs:
            super().notify()

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        if self.loading:  # that may take minutes, and no connection was accepted
            sys.exit(0)

    def handle_quit(self, sig: int, frame: Any) -> None:
        if self.loading or self.booted:
            # Gunicorn 27.0 shuts the pool down here, and takes a lock that this thread may hold already.
            super(ThreadWorker, self).handle_quit(sig, frame)
        # Threads are being started: an exit raised within a lock's own code would be lost.
        self.alive = False

    def accept(self, listener: socket.socket) -> None:
        try:
            accepted, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._make_room()
            elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                self.log.warning("a connection cannot be accepted: %s", error)
            return
        client: Client
        try:
            if self.tls:
                client = self.tls.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
            else:
                client = Client(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        except OSError:  # gone already
            accepted.close()
            return
        if self.nr_conns + 1 >= self.worker_connections:  # at the limit, Gunicorn would stop accepting
            self._make_room()
        self.nr_conns += 1
        connection = Connection(self.cfg, client, address, listener.getsockname())
        self._watch(connection, HEAD_SECONDS)
        self._read(connection, client)  # most often the head has arrived already

    def _read(self, connection: Connection, client: Client) -> None:
        """Read what has arrived on a watched connection."""
        while connection in self.watched:  # else it was closed to make room, in this turn of the loop
            arrived = client.arrived(HEAD_BYTES - len(connection.head))
            if arrived == b"":
                self._close(connection)
            if not arrived or connection.closing:  # what comes too late is dropped, one piece per turn
                return
            looked = len(connection.head)
            connection.head += arrived
            self.heads_bytes += len(arrived)
            if connection.is_whole(looked):
                self._begin(connection)
            elif len(connection.head) == HEAD_BYTES:
                self._refuse(connection, 431 if b"\r\n" in connection.head else 414)
            elif self.heads_bytes > HEADS_BYTES:
                self._make_room()

    def _begin(self, connection: Connection) -> None:
        """Hand a connection whose head is complete to a thread."""
        self._forget(connection)
        connection.parser = get_parser(self.cfg, connection.sock, connection.client)
        connection.parser.unreader.unread(bytes(connection.head))
        connection.sock.deadline = connection.deadline
        connection.head.clear()
        self.tpool.submit(self._handle, connection)

    def _handle(self, connection: Connection) -> None:
        try:
            self.handle(connection)
        finally:
            self.method_queue.defer(self._end, connection)

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        client = environ["embed.client"] = environ["gunicorn.socket"]
        client.deadline = time.monotonic() + BODY_SECONDS
        environ["wsgi.input"] = Input(environ["wsgi.input"])
        environ["wsgi.file_wrapper"] = File
        return self.application(environ, start_response)

    def handle_error(self, req: Any, client: Client, addr: Any, exc: Exception) -> None:
        """Answer in the usual form, and log nothing of the request: it may hold a key."""
        status = next((status for kind, status in STATUSES.items() if isinstance(exc, kind)), 500)
        if status == 500:
            self.log.error("a request failed outside of the application", exc_info=exc)
        with contextlib.suppress(OSError):
            client.sendall(self.service.refusal(status))

    def _refuse(self, connection: Connection, status: int) -> None:
        with contextlib.suppress(OSError):
            connection.sock.send(self.service.refusal(status))
        self._end(connection)

    def _end(self, connection: Connection) -> None:
        """Wait for the client to close, after everything is sent.

        Closing with unread bytes would reset the connection, and the client would lose the answer's end.
        """
        self._forget(connection)
        connection.head.clear()
        connection.closing = True
        try:
            connection.sock.shutdown(socket.SHUT_WR)
            connection.sock.setblocking(False)
        except OSError:
            self._close(connection)
        else:
            self._watch(connection, CLOSE_SECONDS)

    def murder_pending(self) -> None:
        """End connections whose client has not sent its head, or not closed, in time."""
        now = time.monotonic()
        if now < self.looked + LOOK_SECONDS:
            return
        late = [connection for connection in self.watched if connection.deadline <= now]
        if len(late) <= LATE:
            self.looked = now
        else:  # let others go first, then go on, even if nothing arrives that would wake the loop
            self.method_queue.defer(lambda: None)
        for connection in late[:LATE]:
            if connection.head:
                self._refuse(connection, 408)
            else:
                self._close(connection)

    def _watch(self, connection: Connection, seconds: float) -> None:
        connection.deadline = time.monotonic() + seconds
        self.watched.add(connection)
        self.heads_bytes += len(connection.head)
        self.poller.register(connection.sock, EVENT_READ, partial(self._read, connection))

    def _forget(self, connection: Connection) -> None:
        if connection in self.watched:
            self.watched.discard(connection)
            self.heads_bytes -= len(connection.head)
            self.poller.unregister(connection.sock)

    def _close(self, connection: Connection) -> None:
        self._forget(connection)
        self.nr_conns -= 1
        connection.close()

    def _make_room(self) -> None:
        """Close those with the least time left, mostly ones that only wait for the client to close."""
        for connection in heapq.nsmallest(AT_ONCE, self.watched, key=lambda each: each.deadline):
            self._close(connection)
