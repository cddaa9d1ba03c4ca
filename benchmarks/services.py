"""Starts the processes that are measured on free ports, waits for them, watches and ends them."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

from app.processors import thread_budget
from benchmarks import load
from benchmarks.load import Request

ROOT = Path(__file__).parent.parent
ENGINE = "auto"
# Variables of the caller that no process inherits: settings, and those that libraries read.
NOT_PASSED_ON = (
    *("EMBED_", "GUNICORN_", "OMP_", "MKL_", "KMP_", "WEB_", "PORT"),
    *("ONEDNN_", "DNNL_", "OV_", "ATEN_", "FBGEMM_", "CT2_"),
)
START_SECONDS = 900  # the first start on new weights may prepare them for minutes
STOP_SECONDS = 60

# -c /dev/null: do not use the project's gunicorn.conf.py.
PLAIN = "-c /dev/null --workers 1 --worker-class gthread --threads 32 --timeout 0 --no-control-socket"


class StartFailed(Exception):
    """A process ended, or took too long, before it was ready."""


def inherited() -> dict[str, str]:
    """The caller's environment, without variables that would change the measurement."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(NOT_PASSED_ON) or name == "EMBED_CACHE_DIR"
    }


class Process:
    """A process group during a `with` block; it does not get the caller's settings."""

    def __init__(self, command: list[str], environ: dict[str, str], stdin: int, stdout: int | None) -> None:
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, lives as long as the process
        self.popen = subprocess.Popen(
            command,
            cwd=ROOT,
            env=inherited() | offline | environ,
            stdin=stdin,
            stdout=self._log if stdout is None else stdout,
            stderr=self._log,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_until_ready(self) -> None:
        raise NotImplementedError

    def measure(self, requests: list[Request], clients: int) -> dict[str, Any]:
        """Send all requests, this many at a time."""
        raise NotImplementedError

    @property
    def log(self) -> str:
        return os.pread(self._log.fileno(), 2**20, 0).decode(errors="replace")

    def running(self) -> tuple[str, str] | None:
        """The engine and precision that our server logged after loading, if it did."""
        found = re.search(r"loaded .* s: (\w+), (\w+),", self.log)
        return (found[1], found[2]) if found else None

    @property
    def pids(self) -> list[int]:
        """The process and its children."""
        pid = self.popen.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def cpu_seconds(self) -> float:
        """Processor time used so far."""
        ticks = 0
        for pid in self.pids:
            after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(after_name[11]) + int(after_name[12])  # user and system
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End the whole group; kill it if that takes too long."""
        if self.popen.poll() is None:
            self.popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout, self._log):
            if pipe:
                pipe.close()


class Server(Process):
    """A Gunicorn with one worker."""

    ready_seconds = 0.0  # from start to ready

    def __init__(self, flags: list[str], environ: dict[str, str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        gunicorn = str(Path(sys.executable).with_name("gunicorn"))
        command = [gunicorn, "--bind", f"127.0.0.1:{self.port}", *flags]
        self._start = time.monotonic()
        super().__init__(command, environ, subprocess.DEVNULL, None)

    def wait_until_ready(self) -> None:
        while time.monotonic() < self._start + START_SECONDS and self.popen.poll() is None:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=60),
            ):
                self.ready_seconds = round(time.monotonic() - self._start, 2)
                return
            time.sleep(0.05)
        raise StartFailed(f"the server did not become ready:\n{self.log[-3000:]}")

    def measure(self, requests: list[Request], clients: int) -> dict[str, Any]:
        return load.measure(self.port, requests, clients)

    def memory(self) -> dict[str, int]:
        """MiB of the worker: resident now (anonymous and mapped from files) and at most so far."""
        status = Path(f"/proc/{self.pids[1]}/status").read_text()
        found = re.findall(r"^(VmRSS|VmHWM|RssAnon|RssFile):\s+(\d+) kB", status, re.MULTILINE)
        return {name: int(size) // 1024 for name, size in found}


class InProcess(Process):
    """An encoder without HTTP: one JSON line in, one JSON line out. It is ours unless a command is given."""

    def __init__(self, environ: dict[str, str], command: list[str] | None = None) -> None:
        environ = environ | {"OMP_NUM_THREADS": str(thread_budget(workers=1))}  # as gunicorn.conf.py does
        command = command or [sys.executable, "-m", "benchmarks.inprocess"]
        super().__init__(command, environ, subprocess.PIPE, subprocess.PIPE)
        self.hello: dict[str, Any] = {}  # its first line, when it is ready

    def wait_until_ready(self) -> None:
        self.hello = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.popen.stdout
        line = self.popen.stdout.readline()
        if not line:
            raise StartFailed(f"the encoder stopped:\n{self.log[-3000:]}")
        return json.loads(line)

    def tell(self, line: dict[str, Any]) -> dict[str, Any]:
        """Send a line; returns the answer."""
        assert self.popen.stdin
        self.popen.stdin.write(json.dumps(line).encode() + b"\n")
        self.popen.stdin.flush()
        return self._answer()

    def ask(self, requests: list[Request], **also: Any) -> dict[str, Any]:
        """Send all requests, one after another; raises WrongAnswer if it computed other tokens than asked."""
        answer = self.tell({"calls": [request.texts for request in requests]} | also)
        load.check_tokens(answer["tokens"], requests)
        return answer

    def measure(self, requests: list[Request], clients: int = 1, **also: Any) -> dict[str, Any]:
        seconds = self.ask(requests, **also)["seconds"]
        return load.figures(requests, sum(seconds), seconds)


def our_environ(model: Path, engine: str, precision: str) -> dict[str, str]:
    return {"EMBED_MODEL_PATH": str(model), "EMBED_ENGINE": engine, "EMBED_PRECISION": precision}


def plain(model: Path) -> Server:
    return Server([*PLAIN.split(), "benchmarks.plain:app"], {"PLAIN_MODEL": str(model)})


def ours(environ: dict[str, str]) -> Server:
    return Server([], environ)
