"""Processes of the real server die, reload and are overloaded: `make test-faults`."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest

from app.engine.checkpoint import read_checkpoint
from app.engine.export import PARTIAL, ensure_export
from app.engine.native.export import NativeExporter
from tests.server import ROOT, Server, more_config, serving, starting, wait_for

pytestmark = pytest.mark.faults

WORDS = "word " * 60
# A forward pass that does something else for a text of eight tokens.
FORWARD = """
load = post_worker_init

def post_worker_init(worker):
    import sys, threading
    import app.api.health
    load(worker)
    model = worker.application.extensions["encoder"]._model.model
    for name in ("forward", "preempt"):
        def other(sequences, wanted, forward=getattr(model, name)):
            if any(len(sequence) == 8 for sequence in sequences):
                {}
            return forward(sequences, wanted)
        object.__setattr__(model, name, other)  # which is frozen
"""
# It waits forever; and a hang is noticed after seconds, not minutes.
HANGING = "timeout = 3" + FORWARD.format("app.api.health.STUCK_SECONDS = 1; threading.Event().wait()")
# It ends its thread, as may happen when memory runs out.
ENDING = FORWARD.format("sys.exit()")
# Loading may take seconds, not an hour.
IMPATIENT = "import app.server.worker\napp.server.worker.LOAD_SECONDS = 15"
# Makes the time before a worker has its own signal handlers long.
SLOW_START = """
begin = post_fork

def post_fork(server, worker):
    import time
    time.sleep(5)
    begin(server, worker)
    time.sleep(5)
"""


@pytest.fixture
def folder(tmp_path, tiny_folder) -> Path:
    """A copy of the tiny model that a test may destroy."""
    copy = tmp_path / "model"
    shutil.copytree(tiny_folder, copy)
    return copy


@pytest.fixture
def environ(folder) -> dict[str, str]:
    return {"EMBED_MODEL_PATH": str(folder), "EMBED_PRECISION": "fp32"}


@pytest.fixture
def server(tmp_path, environ) -> Iterator[Server]:
    with serving(tmp_path / "log", **environ) as server:
        yield server


@pytest.fixture
def pair(tmp_path, environ) -> Iterator[Server]:
    """A server with two workers, both ready."""
    with serving(tmp_path / "log", WEB_CONCURRENCY="2", **environ) as server:
        wait_for(lambda: server.log.count(" loaded ") == 2)
        yield server


def test_a_killed_worker_is_replaced_and_no_client_hangs(pair):
    with pair.crowded(8, WORDS) as seen:
        time.sleep(2)
        os.kill(min(pair.workers), signal.SIGKILL)
        time.sleep(6)
    print(f"kill -9 of one of two workers under load: {dict(seen)}")
    assert seen[200] > 100
    assert seen.total() - seen[200] <= 8, "more than what was in flight failed"
    assert len(pair.workers) == 2


def test_sigterm_under_load_answers_what_was_accepted(server):
    with ThreadPoolExecutor(20) as pool:
        jobs = [pool.submit(server.ask, [WORDS] * 20) for _ in range(20)]
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        statuses = [job.result() for job in jobs]
    print(f"SIGTERM with 20 requests in flight: {Counter(statuses)}")
    assert statuses == [200] * 20
    assert server.process.wait(70) == 0


def test_sighup_changes_nothing_and_says_so(pair):
    before = pair.workers
    with pair.crowded(8, WORDS) as seen:
        pair.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "SIGHUP is ignored" in pair.log)
        time.sleep(2)
    assert set(seen) == {200}
    assert pair.workers == before


def test_another_master_takes_over_without_a_gap(tmp_path, environ):
    """Send SIGUSR2, then SIGTERM to the old master once the new one serves: the way to change the model."""
    with serving(tmp_path / "log", WEB_CONCURRENCY="2", **environ) as server:
        wait_for(lambda: server.log.count(" loaded ") == 2)
        old = server.workers
        with server.crowded(8, WORDS) as seen:
            server.process.send_signal(signal.SIGUSR2)
            wait_for(lambda: server.log.count(" loaded ") == 4)
            (new,) = server.workers - old
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(60)
            time.sleep(2)
            os.kill(new, signal.SIGTERM)
            wait_for(lambda: not Path(f"/proc/{new}").exists())
        print(f"a new master beside the old one: {dict(seen)}, the longest took {server.longest:.1f} s")
        assert seen[200] > 100
        # Refused after the last one has gone; that may interrupt one request of each client.
        assert set(seen) - {200} <= {"ConnectionRefusedError", "ConnectionResetError", "RemoteDisconnected"}
        assert "Traceback" not in server.log


def test_overload_is_refused_cheaply_and_health_answers(demo_folder):
    """A short benchmark, with floors that a busy machine reaches too."""
    command = [sys.executable, "-m", "benchmarks.overload", "--model", str(demo_folder), "--seconds", "10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    report = orjson.loads(done.stdout)
    print(
        f"{report['requests_per_second']} requests/s: {report['kept']:.0%} of the throughput kept, "
        f"health checks {report['health_ms']} ms, refusals {report['refused_ms']} ms, "
        f"memory {report['memory_mib']} MiB"
    )
    assert not report["errors"]
    assert report["refused"] > report["answered"]
    assert report["kept"] > 0.6
    assert report["health_ms"]["p50"] < 500
    assert report["memory_mib"]["highest"] < 1.5 * report["memory_mib"]["before"]


def test_the_model_folder_may_vanish_while_it_serves(server, folder):
    assert server.ask("before") == 200
    shutil.rmtree(folder)
    assert server.ask([WORDS] * 5) == 200
    assert server.health_ms() < 2000


def test_a_worker_that_cannot_load_is_tried_again_and_stops_no_other(pair, folder):
    away = folder.rename(folder.with_name("away"))
    killed, kept = pair.workers
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: "no model folder" in pair.log)
    wait_for(lambda: " exited with code 1" in pair.log)
    assert kept in pair.workers
    assert pair.ask("the other goes on") == 200
    away.rename(folder)
    wait_for(lambda: pair.log.count(" loaded ") == 3)
    assert pair.ask("and is not alone") == 200


def test_a_worker_that_hangs_while_it_loads_is_replaced(tmp_path, environ, folder):
    ensure_export(read_checkpoint(folder), NativeExporter(), "fp32", None)  # it would take part of the time
    config = (folder / "config.json").rename(folder / "away")
    os.mkfifo(folder / "config.json")  # a reader of this waits for a writer
    with starting(tmp_path / "log", *more_config(tmp_path, IMPATIENT), **environ) as server:
        wait_for(lambda: server.workers)
        first = server.workers
        wait_for(lambda: server.workers - first)
        assert "read_checkpoint" in server.log, "it does not say where it hung"
        (folder / "config.json").unlink()
        config.rename(folder / "config.json")
        server.wait_until_ready()
        time.sleep(17)
        assert server.log.count(" loaded ") == 1
        assert server.ask("a") == 200


def test_sigterm_ends_an_export_and_leaves_nothing_of_it(tmp_path, environ, folder):
    shutil.rmtree(folder / "native", ignore_errors=True)
    with starting(tmp_path / "log", **environ | {"EMBED_PRECISION": "int8"}) as server:
        wait_for(lambda: list((folder / "native").glob(f"{PARTIAL}*")))
        start = time.monotonic()
        assert server.stop() == 0
        print(f"SIGTERM during an export: stopped after {time.monotonic() - start:.1f} s")
        assert "exported" not in server.log
    assert [file.name for file in (folder / "native").iterdir()] == [".lock"]


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("wait", [1, 6])  # seconds: before it has our handlers, and before it has Gunicorn's
def test_a_signal_to_a_worker_that_has_just_begun_is_heard(tmp_path, environ, sign, wait):
    with starting(tmp_path / "log", *more_config(tmp_path, SLOW_START), **environ) as server:
        wait_for(lambda: server.workers)
        time.sleep(wait)
        assert server.stop(sign) == 0
        assert "was sent SIGKILL" not in server.log


def test_a_worker_whose_encoder_ends_is_replaced_at_once(tmp_path, environ):
    with serving(tmp_path / "log", *more_config(tmp_path, ENDING), **environ) as server:
        before = server.workers
        start = time.monotonic()
        assert server.ask("a a a a a a") == 503
        wait_for(lambda: server.workers and server.workers.isdisjoint(before))
        server.wait_until_ready()
        print(f"an encoder that ends: another serves after {time.monotonic() - start:.0f} s")
        assert server.ask("a") == 200
        assert time.monotonic() - start < 60  # less than Gunicorn's `timeout`


def test_keys_change_with_their_file(tmp_path, environ):
    """In every worker, within seconds; while the file is broken, the previous keys stay valid."""
    keys = tmp_path / "keys"
    keys.write_text("old")
    environ |= {"EMBED_API_KEYS_FILE": str(keys), "WEB_CONCURRENCY": "2"}
    with serving(tmp_path / "log", **environ) as server:

        def may_enter(key: str) -> bool:
            status, _ = server.post("/api/embed", {"input": "a"}, Authorization=f"Bearer {key}")
            assert status in (200, 401)
            return status == 200

        wait_for(lambda: server.log.count(" loaded ") == 2)
        before = server.workers
        for text, problem in (("", "contains no key"), ("schlüssel", "characters other than ASCII's")):
            keys.write_text(text)
            wait_for(lambda problem=problem: may_enter("old") and server.log.count(problem) == 2)
        keys.unlink()
        wait_for(lambda: may_enter("old") and server.log.count("cannot be read") == 2)
        keys.write_text("new")
        wait_for(lambda: not may_enter("old") and server.log.count("1 keys open") == 2)
        assert all(may_enter("new") for _ in range(10))
        assert not any(may_enter("old") for _ in range(10))
        assert server.workers == before
        assert "schl" not in server.log


def test_what_a_killed_server_leaves_in_shared_memory_the_next_one_removes(tmp_path, environ):
    place = tmp_path / "metrics"
    place.mkdir()
    environ |= {"PROMETHEUS_MULTIPROC_DIR": str(place)}
    with starting(tmp_path / "log", **environ) as server:
        server.wait_until_ready()
        (left,) = place.iterdir()
        with serving(tmp_path / "log of another", **environ) as beside:
            os.utime(left, (0, 0))  # old, but in use
            server.process.kill()
            wait_for(lambda: not server.workers or server.process.poll() is not None)
            wait_for(lambda: _unlocked(left))
            (beside_folder,) = set(place.iterdir()) - {left}
            os.utime(left, (0, 0))
            os.utime(beside_folder, (0, 0))
            with serving(tmp_path / "log of a third", **environ):
                assert not left.exists()
                assert len(list(place.iterdir())) == 2
            assert beside.ask("a") == 200
            assert beside_folder.exists()


def _unlocked(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def test_a_full_log_does_not_stop_it(tmp_path, environ):
    """/dev/full fails every write, like a full disk."""
    under = ("sh", "-c", 'exec "$@" 2> /dev/full', "sh")
    with serving(tmp_path / "log", under=under, **environ) as server:
        assert [server.ask("a") for _ in range(20)] == [200] * 20
        assert server.post("/api/embed", {})[0] == 422
        assert server.stop() == 0
        assert not server.log


def test_a_forward_that_hangs_gets_the_worker_replaced(tmp_path, environ):
    with serving(tmp_path / "log", *more_config(tmp_path, HANGING), **environ) as server:
        assert server.ask("a") == 200
        before = server.workers
        start = time.monotonic()
        assert isinstance(server.ask("a a a a a a"), str)  # the connection was closed
        print(f"a forward that hangs: its client heard of it after {time.monotonic() - start:.0f} s")
        wait_for(lambda: server.workers and server.workers.isdisjoint(before))
        server.wait_until_ready()
        assert server.ask("a") == 200
