"""Gunicorn: processes, sockets, timeouts, and the hooks that load and close the encoder.

Command line flags, GUNICORN_CMD_ARGS, WEB_CONCURRENCY and PORT override what stands here.
"""

import atexit
import logging
import os
import signal
import sys
import tempfile

from app.config import ConfigError, Settings, unknown_variables
from app.folders import no_model
from app.logs import log_config
from app.processors import thread_budget
from app.server import counters, listening

wsgi_app = "wsgi:app"
worker_class = "app.server.worker.Worker"  # gthread that slow clients cannot stop
# Threads wait for the encoder, they do not compute; some are kept for health checks, see app.api.admission.
threads = 256
worker_connections = 16384  # open at a time: of more, those that have waited longest give way
# No preload: a fork after torch has started its threads hangs at the first forward.
preload_app = False
control_socket_disable = True
timeout = 120
graceful_timeout = 60  # compose and Kubernetes must grant more than this
sendfile = False  # it has no deadline for a client that reads slowly
# The heartbeat file, off the disk; works on a read-only root.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK) else None
# The model comes from a folder; nothing may ask a hub for more.
raw_env = ["HF_HUB_OFFLINE=1", "TRANSFORMERS_OFFLINE=1", "HF_HUB_DISABLE_TELEMETRY=1"]

try:
    logconfig_dict = log_config(Settings.from_env().log_format)
except ConfigError:  # on_starting says which
    logconfig_dict = log_config("text")

if __name__ == "__config__":  # true when Gunicorn loads this file, and not when something else imports it
    counters.make_room(worker_tmp_dir, lambda warning: print(warning, file=sys.stderr))
    atexit.register(counters.remove, os.getpid())  # where it cannot start there is no on_exit


def on_starting(server):
    """In the master, before anything listens: refuse wrong settings, in one sentence."""
    try:
        settings = Settings.from_env()
        _ = settings.keys
        if not settings.model_path.exists():
            raise ConfigError(no_model(settings.model_path))
        listening.check(server.cfg)
    except (ConfigError, listening.CannotListen) as error:
        server.log.critical("%s", error)
        sys.exit(1)
    server.countdown = listening.Countdown(server.cfg.workers)
    for warning in unknown_variables():
        server.log.warning("%s", warning)


def when_ready(server):
    """Without this SIGHUP would end all workers before others have loaded."""
    advice = "SIGHUP is ignored. The file of keys is read again when it changes; else start a new server"
    signal.signal(signal.SIGHUP, lambda *_: server.log.warning(advice))


def on_exit(server):
    counters.remove(server.pid)


def child_exit(server, worker):
    counters.retire(worker.pid)


def post_fork(server, worker):
    """In the worker, before the application and its libraries are imported."""
    worker.start(server)
    counters.make_room(worker_tmp_dir, worker.log.warning)
    try:
        tempfile.gettempdir()
    except FileNotFoundError:  # a read-only root without a /tmp; torch asks for one when imported
        os.environ["TMPDIR"] = "/dev/shm"
    os.environ.setdefault("OMP_NUM_THREADS", str(thread_budget(worker.cfg.workers)))
    logging.getLogger("app").setLevel(worker.log.error_log.level)  # --log-level is for ours too


def post_worker_init(worker):
    """Load and warm the encoder; the worker accepts nothing before this returns."""
    worker.load()


def worker_exit(server, worker):
    worker.close()
