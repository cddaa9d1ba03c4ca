"""The server runs out of memory or disk space, or its clock is set: `make test-faults`."""

import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson
import pytest

from tests.server import head, serving, wait_for

pytestmark = pytest.mark.faults

WORDS = "word " * 60
CGROUPS = Path("/sys/fs/cgroup")


@pytest.fixture
def environ(tiny_folder_of_all_words) -> dict[str, str]:
    return {"EMBED_MODEL_PATH": str(tiny_folder_of_all_words), "EMBED_PRECISION": "fp32"}


def in_namespace(script: str) -> tuple[str, ...]:
    """The command line prefix for a mount namespace of its own, in which the script runs first."""
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if os.geteuid() != 0 or probe.returncode != 0:
        pytest.skip("needs root and mount namespaces")
    return "unshare", "--mount", "sh", "-c", f"mount --make-rprivate / && {script}", "sh"


@contextmanager
def memory_group() -> Iterator[tuple[Path, Path]]:
    """A memory cgroup, of version 1 or 2, for one test: its folder, and the file of its limit."""
    second = (CGROUPS / "cgroup.controllers").is_file()
    group = (CGROUPS if second else CGROUPS / "memory") / f"embed-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error.strerror}")
    try:
        limit = group / ("memory.max" if second else "memory.limit_in_bytes")
        if not limit.exists():
            pytest.skip("the memory controller is not there")
        yield group, limit
    finally:
        wait_for(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def anonymous_bytes(group: Path) -> int:
    lines = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(lines.get("anon") or lines["total_rss"])


def test_over_the_memory_limit_a_worker_is_replaced(tmp_path, environ):
    """The answer to one request is larger than the cgroup allows, so the kernel kills the worker."""
    body = orjson.dumps(
        {"input": [f"{'a ' * 500}{number}" for number in range(500)], "return_colbert_vecs": True}
    )
    with memory_group() as (group, limit):
        into = ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")
        with serving(tmp_path / "log", under=into, WEB_CONCURRENCY="2", **environ) as server:
            wait_for(lambda: server.log.count(" loaded ") == 2)
            before = server.workers
            used = anonymous_bytes(group)
            limit.write_text(str(used + 100 * 2**20))
            connection = server.connect(head(len(body)) + body)
            start = time.monotonic()
            with server.crowded(2, "a small one") as seen:
                wait_for(lambda: server.workers - before, 240)
                killed = time.monotonic()
                with suppress(ConnectionError):
                    assert connection.recv(100) == b""
                heard = time.monotonic() - killed
                wait_for(lambda: server.log.count(" loaded ") == 3)
                time.sleep(1)
            assert len(before & server.workers) == 1
        print(
            f"memory limit {(used >> 20) + 100} MiB: worker killed after {killed - start:.1f} s, its client "
            f"heard {max(0, heard):.1f} s later; small requests meanwhile: {dict(seen)}"
        )
        assert heard < 2
        assert seen[200] > 10
        assert seen.total() - seen[200] <= 2


CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
static volatile long *offset;
__attribute__((constructor)) static void start(void) {
    offset = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, open(getenv("CLOCK_OFFSET"), O_RDONLY), 0);
}
int clock_gettime(clockid_t clock, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, at);
    if (!failed && clock == CLOCK_REALTIME) at->tv_sec += *offset;
    return failed;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec, at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


@pytest.fixture
def clock(tmp_path) -> tuple[Path, Path]:
    """A library that shifts the time of day by the seconds in a file, as setting the clock does.

    libfaketime does not work here, as it breaks Python's sleep.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("needs a C compiler")
    library, offset = tmp_path / "clock.so", tmp_path / "offset"
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", library, "-ldl"]
    subprocess.run(command, input=CLOCK.encode(), check=True)
    offset.write_bytes(struct.pack("l", 0))
    return library, offset


@pytest.mark.parametrize("jump", [3600, -3600])
def test_the_clock_may_jump(tmp_path, environ, clock, jump):
    library, offset = clock
    environ |= {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset), "EMBED_REQUEST_TIMEOUT": "20"}
    with serving(tmp_path / "log", "--timeout", "5", **environ) as server:
        before, lines = server.workers, len(server.log.splitlines())
        with server.crowded(4, [WORDS] * 20) as seen:
            time.sleep(2)
            with offset.open("r+b") as file:
                file.write(struct.pack("l", jump))
            time.sleep(8)  # longer than the workers' timeout
        hours = {line[11:13] for line in server.log.splitlines()[lines:] if line.startswith("20")}
        print(f"clock {jump:+} s: {dict(seen)}, the longest took {server.longest:.1f} s")
        assert len(hours) > 1, "the clock did not jump"
        assert set(seen) == {200}
        assert server.longest < 5
        assert server.workers == before


def test_a_full_disk_under_the_export_is_one_sentence_and_leaves_nothing(tmp_path, tiny_folder_of_all_words):
    """The model folder is read-only and the cache is full; later the cache has room."""
    model, cache = tmp_path / "model", tmp_path / "cache"
    shutil.copytree(tiny_folder_of_all_words, model, ignore=shutil.ignore_patterns("native", "openvino"))
    cache.mkdir()
    full = in_namespace(
        f"mount --bind {model} {model} && mount -o remount,bind,ro {model} && "
        f"mount -t tmpfs -o size=8m none {cache} && "
        f'{{ "$@"; echo "exit status $?, left: $(find {cache} -type f)"; '
        f'mount -o remount,size=500m {cache} && exec "$@"; }}'
    )
    environ = {"EMBED_MODEL_PATH": str(model), "EMBED_CACHE_DIR": str(cache), "EMBED_PRECISION": "fp32"}
    with serving(tmp_path / "log", under=full, **environ) as server:
        before, _, after = server.log.partition("exit status 3, left: ")
        sentence = next(line for line in before.splitlines() if "[CRITICAL]" in line)
        left = after.partition("[")[0].split()[:-2]
        print(f"full disk under the export: {sentence.partition('] ')[2]}; left: {left}")
        assert "cannot be written" in sentence
        assert "MiB are free" in sentence
        assert "Traceback" not in server.log
        assert [Path(file).name for file in left] == [".lock"]
        assert server.ask("there is room now") == 200


def test_no_room_for_metrics_does_not_stop_it(tmp_path, environ):
    """The workers' counters are mapped files: on a full disk, the kernel kills whoever writes to them."""
    full = tmp_path / "metrics"
    full.mkdir()
    prepare = in_namespace(
        f"mount -t tmpfs -o size=2m none {full} && "
        f'{{ head -c 3m /dev/zero > {full}/filling 2> /dev/null; exec "$@"; }}'
    )
    with serving(tmp_path / "log", under=prepare, PROMETHEUS_MULTIPROC_DIR=str(full), **environ) as server:
        before = server.workers
        assert [server.ask("one") for _ in range(50)] == [200] * 50
        assert server.workers == before
        print([line for line in server.log.splitlines() if "metrics" in line])
        assert "no room for metrics" in server.log


def test_a_full_shared_memory_does_not_stop_it(tmp_path, environ):
    """It fills up while the server runs; the counters' space is already reserved."""
    start = tmp_path / "start"
    fill = f"while [ ! -e {start} ]; do sleep 0.1; done; cat /dev/zero > /dev/shm/filling; echo it is full"
    prepare = in_namespace(f'mount -t tmpfs -o size=16m none /dev/shm && {{ ({fill}) & exec "$@"; }}')
    with serving(tmp_path / "log", under=prepare, **environ) as server:
        start.touch()
        wait_for(lambda: "it is full" in server.log)
        for path in ("/api/embed", "/v1/embeddings", "/embed", "/rerank", "/api/show", "/nothing"):
            server.post(path, {"input": "a", "inputs": "b", "query": "c", "texts": ["d"], "model": "bge-m3"})
        assert [server.ask("one") for _ in range(50)] == [200] * 50
        assert server.log.count(" loaded ") == 1
