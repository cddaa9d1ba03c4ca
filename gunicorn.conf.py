"""Gunicorn: processes, sockets, timeouts, and the hooks that load and close the encoder.

Command line flags, GUNICORN_CMD_ARGS, WEB_CONCURRENCY and PORT override what stands here.
Gunicorn takes every global below that has the name of a setting, so hooks import what they need.
"""

import os
import tempfile

wsgi_app = "wsgi:app"
worker_class = "app.worker.Worker"  # gthread that slow clients cannot stop
# Threads wait for the encoder, they do not compute; some are kept for health checks, see app.worker.
threads = 256
# No preload: a fork after torch has started its threads hangs at the first forward.
preload_app = False
control_socket_disable = True
timeout = 120
graceful_timeout = 60  # compose and Kubernetes must grant more than this
keepalive = 0  # a kept connection would stay with its worker, however busy, see _tie_connections
# The heartbeat file, off the disk; works on a read-only root.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK) else None
# A worker that has not loaded by then, an export included, hangs: it says where, ends and is replaced.
LOAD_SECONDS = 3600
# The model comes from a folder; nothing may ask a hub for more.
raw_env = ["HF_HUB_OFFLINE=1", "TRANSFORMERS_OFFLINE=1", "HF_HUB_DISABLE_TELEMETRY=1"]


# A worker's counters are files mapped into its memory. One that had to grow on a full disk would end the
# process, so room is set aside. The names are prometheus-client's.
METRICS_FILES = ("counter", "histogram", "gauge_liveall", "gauge_livemax", "gauge_livesum")
METRICS_BYTES = 1 << 18
METRICS_PREFIX = "embed-metrics-"


def _make_room_for_metrics(warn):
    """Set PROMETHEUS_MULTIPROC_DIR to a folder with room for this process's counters, and take it.

    The folder is this server's alone, within the one the variable names at first. prometheus-client
    reads it when it is imported, and again after a fork.
    """
    asked = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    for place in [asked] * bool(asked) + [worker_tmp_dir, None]:
        folder = place
        try:
            if not os.path.basename(place or "").startswith(METRICS_PREFIX):
                folder = tempfile.mkdtemp(prefix=METRICS_PREFIX, dir=place)
            _take_room(folder)
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            return
        except OSError as error:
            warn(f"no room for metrics in {folder or place}, which holds their counters: {error.strerror}")
    raise SystemExit("no room for metrics anywhere: free some, or point PROMETHEUS_MULTIPROC_DIR to some")


def _take_room(folder):
    for name in METRICS_FILES:
        path = os.path.join(folder, f"{name}_{os.getpid()}.db")
        if os.path.exists(path):
            continue
        try:
            with open(path, "wb") as file:
                file.write(bytes(METRICS_BYTES))
        except OSError:
            if os.path.exists(path):
                os.unlink(path)  # half a file would break /metrics
            raise


def _remove_metrics(master):
    import shutil

    if os.getpid() == master:
        shutil.rmtree(os.environ.get("PROMETHEUS_MULTIPROC_DIR", ""), ignore_errors=True)


if __name__ == "__config__":  # Gunicorn runs this, and nobody who only looks at it
    import atexit
    import sys

    _make_room_for_metrics(lambda warning: print(warning, file=sys.stderr))
    atexit.register(_remove_metrics, os.getpid())  # where it cannot start there is no on_exit


def _log_config():
    from app.config import ConfigError, Settings
    from app.logs import log_config

    try:
        return log_config(Settings.from_env().log_format)
    except ConfigError:  # on_starting says which
        return log_config("text")


logconfig_dict = _log_config()


def on_starting(server):
    """In the master, before anything listens: refuse wrong settings, in one sentence."""
    import mmap
    import sys

    if _wrong_settings(server.log):
        sys.exit(1)
    server.retired = mmap.mmap(-1, 8)  # shared with the workers, see app.worker.turn
    _tie_connections(server)


def _wrong_settings(log):
    """Whether one cannot be used; the log says which."""
    from app.config import ConfigError, Settings

    try:
        _ = Settings.from_env().keys
    except ConfigError as error:
        log.critical("%s", error)
        return True
    return False


def on_exit(server):
    _remove_metrics(server.pid)


def pre_exec(server):
    """In a new master to be, on an upgrade in place: it must not take this one's folder."""
    asked = server.cfg.env_orig.get("PROMETHEUS_MULTIPROC_DIR", "")
    if os.path.basename(asked).startswith(METRICS_PREFIX):
        server.cfg.env_orig["PROMETHEUS_MULTIPROC_DIR"] = os.path.dirname(asked)


def child_exit(server, worker):
    import contextlib
    import glob
    import struct

    from prometheus_client.mmap_dict import MmapedDict
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)
    # Its counts go on to be added, but it needs no room for more. A file begins with how much of it is used.
    folder = os.environ["PROMETHEUS_MULTIPROC_DIR"]
    for path in glob.glob(os.path.join(glob.escape(folder), f"*_{worker.pid}.db")):
        with contextlib.suppress(Exception), open(path, "r+b") as file:  # it may have died in the middle
            if any(value for _, value, *_ in MmapedDict.read_all_values_from_file(path)):
                file.truncate(*struct.unpack("i", file.read(4)))
            else:  # such as of one that could not load, which is tried again and again
                os.unlink(path)


def on_reload(server):
    server.retired[:8] = server.worker_age.to_bytes(8, "big")
    _tie_connections(server)


def _tie_connections(server):
    # A worker that accepts more connections than it has threads queues requests which an idle
    # sibling could answer.
    server.cfg.set("worker_connections", server.cfg.threads)


def post_fork(server, worker):
    """In the worker, before the application and its libraries are imported."""
    import faulthandler
    import logging
    import signal
    import sys

    # The master's handlers, which a fork inherits, would take these for orders to the master, and what
    # came since the fork is in a copy of its queue.
    ends = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
    for number in ends:
        signal.signal(number, lambda *_: sys.exit(0))
    while not server.SIG_QUEUE.empty():
        if server.SIG_QUEUE.get_nowait() in ends:
            sys.exit(0)
    try:  # Gunicorn does not look whether a worker hangs before it serves
        faulthandler.dump_traceback_later(LOAD_SECONDS, exit=True)
    except Exception as error:
        worker.log.warning("nobody will notice if this worker hangs while it loads: %s", error)

    from app.config import thread_budget
    from app.worker.turn import Turn

    worker.turn = Turn(worker.age, worker.cfg, server.WORKERS, server.retired)
    if _wrong_settings(worker.log):  # on_starting saw them right, but a reload may bring others
        worker.turn.give_up()
    try:
        tempfile.gettempdir()
    except FileNotFoundError:  # a read-only root without a /tmp; torch asks for one when imported
        os.environ["TMPDIR"] = "/dev/shm"

    _make_room_for_metrics(worker.log.warning)
    if not worker.cfg.accesslog:  # its lines would be made, for nobody to see
        worker.log.access = lambda *_: None
    os.environ.setdefault("OMP_NUM_THREADS", str(thread_budget(worker.cfg.workers)))
    logging.getLogger("app").setLevel(worker.log.error_log.level)  # --log-level is for ours too


def post_worker_init(worker):
    """Load and warm the encoder; the worker accepts nothing before this returns."""
    import faulthandler

    from app.api.admission import Admission
    from app.api.health import hangs
    from app.api.metrics import announce
    from app.engine.checkpoint import read_checkpoint
    from app.engine.errors import ModelError

    application = worker.wsgi
    encoder = application.extensions["encoder"]
    try:
        read_checkpoint(application.config["EMBED"].model_path)  # before anybody stops for this one
        worker.turn.wait()
        encoder.load()
        announce(application)
        admission = Admission(application, worker.cfg.threads)
    except ModelError as error:
        worker.log.critical(
            "%s. Run `flask model download` for BGE-M3 or `flask model demo` for the small demo "
            "model, or set EMBED_MODEL_PATH to a model folder",
            error,
        )
        worker.turn.give_up()
    except Exception:
        worker.log.exception("the encoder cannot be loaded")
        worker.turn.give_up()
    worker.refusal, worker.unreadable = admission.refusal, admission.unreadable
    worker.hangs = lambda: bool(hangs(encoder.load_state))
    worker.broken = lambda: encoder.load_state.broken
    faulthandler.cancel_dump_traceback_later()
    worker.turn.pass_on()


def worker_exit(server, worker):
    application = getattr(worker, "wsgi", None)  # absent where the worker never got that far
    if application is not None:
        application.extensions["encoder"].close()
