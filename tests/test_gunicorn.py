"""The real server: how it starts, its limits, how it ends. One process with a real (tiny) model."""

import errno
import os
import re
import runpy
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import orjson
import pytest
from gunicorn.config import KNOWN_SETTINGS
from prometheus_client.mmap_dict import MmapedDict, mmap_key

import app.config
import app.folders
import app.logs
import app.processors
from app.processors import thread_budget
from app.server import counters, listening
from app.server.worker import Worker
from tests.server import ROOT, Server, free_port, serving, starting, wait_for

CONF = runpy.run_path(str(ROOT / "gunicorn.conf.py"))


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_folder):
    log = tmp_path_factory.mktemp("log") / "server.log"
    environ = {"EMBED_MODEL_PATH": str(tiny_folder), "EMBED_MAX_BODY_BYTES": "50000"}
    with ThreadPoolExecutor(1) as pool, serving(log, EMBED_PRECISION="fp32", **environ) as server:
        server.half_a_head = pool.submit(send_half_a_head, server)  # other tests run while it waits
        yield server


def send_half_a_head(server: Server) -> tuple[bytes, float]:
    """The answer to half a head, and after how many seconds it came."""
    start = time.monotonic()
    with server.connect(b"GET /healthz HTTP/1.1\r\nHost: h\r\n") as connection:
        return connection.recv(100), time.monotonic() - start


def test_every_setting_in_the_configuration_exists():
    """Gunicorn silently ignores a misspelt setting."""
    known = {setting.name for setting in KNOWN_SETTINGS}
    own = {name for name, value in CONF.items() if name.islower() and not name.startswith("_")}
    of = (app.config, app.folders, app.logs, app.processors)
    imported = {
        name
        for name in own
        if isinstance(CONF[name], ModuleType) or any(name in vars(module) for module in of)
    }
    assert own - imported - known == set()
    assert CONF["preload_app"] is False
    assert CONF["control_socket_disable"] is True


def test_closing_tolerates_a_worker_that_never_got_an_application():
    CONF["worker_exit"](None, Worker.__new__(Worker))


def test_a_dead_worker_that_counted_nothing_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    for name, value in (("counter_7.db", 3.0), ("histogram_7.db", 0.0), ("counter_8.db", 0.0)):
        file = MmapedDict(str(tmp_path / name))
        file.write_value(mmap_key("a", "a", [], [], "a"), value, 0.0)
        file.close()
    (tmp_path / "gauge_liveall_7.db").write_bytes(bytes(counters.BYTES))
    (tmp_path / "counter_7.db.other").touch()
    CONF["child_exit"](None, SimpleNamespace(pid=7))
    left = {file.name: file.stat().st_size for file in tmp_path.iterdir()}
    assert left.keys() == {"counter_7.db", "counter_7.db.other", "counter_8.db"}
    assert left["counter_7.db"] < 200 < left["counter_8.db"]
    assert [value for _, value, *_ in MmapedDict.read_all_values_from_file(tmp_path / "counter_7.db")] == [3]


def test_it_serves_vectors_and_says_what_it_loaded(server, reference):
    texts = ["什么是机器学习？", "Guten Morgen", ""]
    status, answer = server.post("/api/embed", {"input": texts})
    assert status == 200
    np.testing.assert_allclose(answer["embeddings"], reference.encode(texts).dense, atol=1e-6)
    assert answer["model"] == "tiny"
    assert answer["load_duration"] > 0
    line = next(line for line in server.log.splitlines() if "loaded" in line)
    for words in ("native, fp32", "64 dimensions", "mean pooling", "up to 8192 tokens"):
        assert words in line
    assert f"{thread_budget(1)} threads" in line


def test_many_clients_at_once_get_their_own_vectors(server, reference):
    texts = [f"text number {index} {'word ' * (index % 7)}" for index in range(48)]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda text: server.post("/api/embed", {"input": text}), texts))
    vectors = [answer["embeddings"][0] for status, answer in answers if status == 200]
    np.testing.assert_allclose(vectors, reference.encode(texts).dense, atol=1e-5)


def export(folder):
    from app.engine.backends import Place
    from app.engine.checkpoint import read_checkpoint
    from app.engine.prepare import prepare

    prepare(read_checkpoint(folder), "auto", "auto", Place())


def chunked(server: Server, body: bytes) -> bytes:
    """The answer to a body sent in chunks, without a Content-Length."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(
            b"POST /api/embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        for start in range(0, len(body), 4096):
            piece = body[start : start + 4096]
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")
        answer = b""
        while more := connection.recv(65536):
            answer += more
        return answer


def test_a_chunked_body_is_read_whole(server):
    body = b'{"input": ["%s"], "encoding_format": "base64"}' % (b"word " * 8000)
    assert 40_000 < len(body) < 50_000
    answer = chunked(server, body)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"prompt_eval_count":8002' in answer


def test_a_chunked_body_over_the_limit_is_413_and_not_cut(server):
    answer = chunked(server, b'{"input": "a"}' + b" " * 50_000)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"50000 bytes" in answer


@pytest.mark.parametrize("size", [50_001, 5_000_000, 40_000_000])
def test_a_body_over_the_limit_is_413_and_the_client_hears_it(server, size):
    status, answer = server.post("/api/embed", b'{"input": "' + b"a" * (size - 13) + b'"}')
    assert status == 413
    assert "50000 bytes" in answer["error"]


def test_a_body_that_ends_early_gets_an_answer(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(
            b"POST /api/embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b'Content-Length: 1000\r\n\r\n{"input": "a'
        )
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /api/embed HTTP/1.1\r\nAuthorization Bearer a-secret\r\n\r\n", 400),
        (b"POST /api/embed?a-secret HTTP/x\r\n\r\n", 400),
        (b"a-secret\r\n\r\n", 400),
        (b"GET /" + 5000 * b"a-secret" + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + 200 * b"a: a-secret\r\n" + b"\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: a-secret\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: x\r\nExpect: a-secret\r\n\r\n", 417),
    ],
    ids=lambda value: value[:24] if isinstance(value, bytes) else value,
)
def test_what_is_not_http_gets_an_answer_like_any_other(server, sent, status):
    with server.connect(sent) as connection, connection.makefile("rb") as file:
        head, _, body = file.read().decode().partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ")
    assert "Server" not in head
    assert set(orjson.loads(body)) == {"error", "details"}
    request_id = re.search("X-Request-ID: (.*)", head)[1]
    (line,) = [line for line in server.log.splitlines() if request_id.strip() in line]
    assert f"other none {status}, " in line
    assert "a-secret" not in server.log


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"GET / HTTP/1.1\r\n" + 8000 * b"a: b\r\n", 431), (b"GET / HTTP/1.1\nHost: x\n\n", 400), (b"\n", 400)],
    ids=["40 KB without an end", "bare line feeds", "a line feed"],
)
def test_what_will_never_be_a_head_is_answered_at_once(server, sent, status):
    start = time.monotonic()
    with server.connect(sent) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 %d " % status)
    assert time.monotonic() < start + 5


def test_a_byte_out_of_band_is_no_close(server):
    with server.connect(b"GET /healthz HTTP/1.1\r\nHost: h\r\n") as connection:
        connection.send(b"x", socket.MSG_OOB)
        time.sleep(0.2)
        connection.sendall(b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_no_connection_is_kept(tmp_path, tiny_folder):
    """Whatever the operator sets: otherwise data after a late body would be taken for a request."""
    environ = {"EMBED_MODEL_PATH": str(tiny_folder), "EMBED_PRECISION": "fp32"}
    request = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
    with (
        serving(tmp_path / "log", "--keep-alive", "3", **environ) as server,
        server.connect(request + request) as connection,
        connection.makefile("rb") as file,
    ):
        answer = file.read()
    assert answer.count(b"HTTP/1.1 200") == answer.count(b"Connection: close") == 1


def test_health(server):
    for path in ("/healthz", "/readyz", "/health", "/apidocs/", "/redoc"):
        with urllib.request.urlopen(server.url + path) as response:
            assert response.status == 200


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make a certificate with")
def test_over_tls_too_requests_may_take_a_while_and_only_so_many_wait(tmp_path, tiny_folder):
    """The request takes longer than the interval at which the server checks for its client."""
    key, certificate = str(tmp_path / "key"), str(tmp_path / "certificate")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    flags = ("--keyfile", key, "--certfile", certificate, "--threads", "2")
    server = Server(tmp_path / "log", *flags, EMBED_MODEL_PATH=str(tiny_folder), EMBED_PRECISION="fp32")
    try:
        wait_for(lambda: " loaded " in server.log)
        context = ssl.create_default_context(cafile=certificate)

        def ask(texts: list[str]) -> int:
            body = orjson.dumps({"input": texts})
            request = urllib.request.Request(
                f"https://localhost:{server.port}/api/embed", body, {"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(request, context=context, timeout=60) as answer:
                    assert len(orjson.loads(answer.read())["embeddings"]) == len(texts)
                    return answer.status
            except urllib.error.HTTPError as error:
                return error.code

        with ThreadPoolExecutor() as pool:
            long = pool.submit(ask, [f"{'word ' * 7000}{number}" for number in range(6)])
            time.sleep(0.5)
            assert ask(["another"]) == 503
            assert long.result() == 200
        assert server.stop() == 0
        assert "Traceback" not in server.log
    finally:
        server.process.kill()


def test_once_it_can_answer_it_says_where_in_one_line(server):
    """And what it is; nothing of what Gunicorn says of its own start."""
    (line,) = [line for line in server.log.splitlines() if "ready: " in line]
    model = "tiny: 64 dimensions, dense, lexical and multi-vectors, mean pooling, fp32"
    assert line.endswith(f"ready: {server.url}  ({model})")
    assert line.split("ready: ")[0].endswith("[INFO] ")
    for noise in ("Starting gunicorn", "Listening at", "Using worker", "Booting worker"):
        assert noise not in server.log


def test_of_several_workers_the_last_says_it_for_every_address(tmp_path, tiny_folder):
    path, port = tmp_path / "socket", free_port()
    binds = ("--bind", f"0.0.0.0:{port}", "--bind", f"unix:{path}")
    environ = {"EMBED_MODEL_PATH": str(tiny_folder), "EMBED_LOG_FORMAT": "json", "WEB_CONCURRENCY": "2"}
    with starting(tmp_path / "log", *binds, **environ) as server:
        wait_for(lambda: "ready: " in server.log)
        lines = [orjson.loads(line) for line in server.log.splitlines()]
        said = [line["message"] for line in lines]
        assert said[-1].startswith(f"ready: {server.url}, http://127.0.0.1:{port}, unix:{path}  (tiny: ")
        loaded = [line["pid"] for line in lines if line["message"].startswith("loaded ")]
        assert len(loaded) == 2
        os.kill(loaded[0], signal.SIGKILL)
        wait_for(lambda: server.log.count("loaded ") == 3)
        wait_for(lambda: server.ask("one") == 200)
        assert server.log.count("ready: ") == 1


def test_a_port_that_is_taken_is_one_sentence_that_says_what_to_type(tmp_path, tiny_folder):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        start = time.monotonic()
        server = Server(tmp_path / "log", "--bind", f"127.0.0.1:{port}", EMBED_MODEL_PATH=str(tiny_folder))
        assert server.process.wait(30) == 1
    (line,) = server.log.splitlines()
    found = re.search(
        rf"port {port} is in use by another program: choose another one with `make run PORT=(\d+)`", line
    )
    assert f"`gunicorn --bind 127.0.0.1:{found[1]}`" in line
    assert time.monotonic() - start < 15


@pytest.mark.parametrize(
    ("host", "port", "number", "advice"),
    [
        ("0.0.0.0", 80, errno.EACCES, "port 80 needs rights that this user does not have: choose another"),
        ("10.9.8.7", 8000, errno.EADDRNOTAVAIL, "this machine cannot listen at 10.9.8.7:8000 (Cannot assign"),
        ("::1", 8000, errno.EADDRINUSE, "port 8000 is in use by another program"),
    ],
)
def test_what_keeps_it_from_listening_is_told(host, port, number, advice):
    assert listening._advice(host, port, OSError(number, os.strerror(number))).startswith(advice)


def test_a_socket_where_none_can_be_made_is_one_sentence(tmp_path, tiny_folder):
    bind = ("--bind", f"unix:{tmp_path}/nowhere/socket")
    server = Server(tmp_path / "log", *bind, EMBED_MODEL_PATH=str(tiny_folder))
    assert server.process.wait(30) == 1
    (line,) = server.log.splitlines()
    assert line.endswith(
        f"no socket can be made in {tmp_path}/nowhere, which does not exist: give --bind another place"
    )


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
@pytest.mark.parametrize(("words", "flags"), [((), ""), (("PORT=9000",), " --bind 127.0.0.1:9000")])
def test_make_run_takes_a_port(words, flags):
    old = [word for target in (".venv/serve", "models/multilingual-e5-small") for word in ("-o", target)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "-n", *old, "run", *words]  # not as a part of the `make test` that runs this
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].rstrip() == f"exec .venv/bin/gunicorn{flags}"


def test_a_missing_model_stops_the_server_with_one_line(tmp_path):
    server = Server(tmp_path / "log", EMBED_MODEL_PATH=str(tmp_path / "nothing"))
    assert server.process.wait(60) == 1
    (line,) = server.log.splitlines()
    assert f"[CRITICAL] there is no model folder {tmp_path / 'nothing'}. `make run` serves a small" in line
    assert "`make model` downloads BGE-M3 (2.3 GB), and EMBED_MODEL_PATH names another folder" in line


def test_a_folder_that_is_no_model_stops_it_and_says_which_file_is_missing(tmp_path):
    server = Server(tmp_path / "log", EMBED_MODEL_PATH=str(tmp_path))
    assert server.process.wait(60) == 3
    (critical,) = [line for line in server.log.splitlines() if "[CRITICAL]" in line]
    for words in (str(tmp_path), "config.json", "flask model download", "EMBED_MODEL_PATH"):
        assert words in critical
    assert "Traceback" not in server.log


def test_a_wrong_setting_stops_the_server_with_one_line(tmp_path, tiny_folder):
    (metrics := tmp_path / "metrics").mkdir()
    environ = {"EMBED_MODEL_PATH": str(tiny_folder), "PROMETHEUS_MULTIPROC_DIR": str(metrics)}
    server = Server(tmp_path / "log", EMBED_POOLING="max", **environ)
    assert server.process.wait(60) == 1
    assert not list(metrics.iterdir())
    assert "EMBED_POOLING is 'max', it must be mean or cls" in server.log
    assert "Traceback" not in server.log


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly_while_it_computes(tmp_path, tiny_folder, sign):
    with serving(tmp_path / "log", EMBED_MODEL_PATH=str(tiny_folder)) as server:
        answers = []
        body = {"input": ["the " * 8190] * 3, "encoding_format": "base64"}

        def ask():
            try:
                answers.append(server.post("/api/embed", body)[0])
            except OSError as error:  # what a client sees if the server closed at once
                answers.append(type(error).__name__)

        batches = metric(server, "embed_batch_tokens_count")
        asking = threading.Thread(target=ask)
        asking.start()
        wait_for(lambda: metric(server, "embed_batch_tokens_count") > batches)
        assert server.stop(sign) == 0
        asking.join(30)
    assert "Traceback" not in server.log
    assert "Segmentation" not in server.log
    if sign == signal.SIGTERM:
        assert answers == [200]


def test_workers_share_the_processors(tmp_path, tiny_folder):
    with serving(tmp_path / "log", EMBED_MODEL_PATH=str(tiny_folder), WEB_CONCURRENCY="2") as server:
        for _ in range(8):
            assert server.post("/api/embed", {"input": "a"})[0] == 200
        wait_for(lambda: server.log.count(" loaded ") == 2)
        assert server.stop() == 0
    share = thread_budget(2)
    loaded = [line for line in server.log.splitlines() if " loaded " in line]
    assert len(loaded) == 2
    assert all(line.endswith(f", {share} threads") for line in loaded)


def test_with_the_model_in_place_nothing_touches_the_network(tiny_folder):
    """Every connection and DNS look-up fails. Also, serving needs neither torch nor transformers."""
    code = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError(f"the network was asked for: {args}")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
from wsgi import app
app.extensions["encoder"].load()
answer = app.test_client().post("/api/embed", json={"input": ["a", "b"]})
assert len(answer.json["embeddings"]) == 2
assert app.test_client().get("/apidocs/").status_code == 200
assert "torch" not in sys.modules and "transformers" not in sys.modules
print("served")
"""
    export(tiny_folder)
    environ = os.environ | {"EMBED_MODEL_PATH": str(tiny_folder)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert done.stdout == "served\n", done.stderr


def test_it_runs_as_another_user_on_a_read_only_root(tmp_path, tiny_folder):
    """Runs as nobody in a mount namespace where everything except /dev/shm is read-only, also /tmp."""
    export(tiny_folder)
    for folder in (tiny_folder, *tiny_folder.parents):
        if folder.stat().st_mode & 0o005 != 0o005 and folder.is_relative_to("/tmp"):
            folder.chmod(0o755)
    port = free_port()
    script = (
        "mount --make-rprivate / && mount -o remount,bind,ro / && "
        'exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"'
    )
    nobody = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable]
    reads = f"import gunicorn; [open(path) for path in ({str(tiny_folder / 'config.json')!r}, 'wsgi.py')]"
    probe = subprocess.run([*nobody, "-c", reads], cwd=ROOT, capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("needs root, mount namespaces and files that all may read; the container test covers it")
    process = subprocess.Popen(
        [*nobody, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "EMBED_MODEL_PATH": str(tiny_folder), "HOME": "/nonexistent"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seen = []
    for line in process.stdout:
        seen.append(line)
        if " loaded " in line:
            break
    process.send_signal(signal.SIGTERM)
    process.stdout.close()
    process.wait(30)
    assert " loaded " in seen[-1], "".join(seen)


def metric(server, name):
    """A value from /metrics, summed over its labels if it has any."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return sum(map(float, re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))


def test_a_client_that_hung_up_costs_nothing_more(tmp_path, tiny_folder):
    environ = {"EMBED_MODEL_PATH": str(tiny_folder), "EMBED_PRECISION": "fp32"}
    texts = [f"{number} " + "a " * 8180 for number in range(60)]
    body = orjson.dumps({"input": texts})
    with serving(tmp_path / "log", **environ) as server:
        before = metric(server, "embed_batch_tokens_sum")
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(
                b"POST /api/embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            end = time.monotonic() + 30
            while metric(server, "embed_batch_tokens_sum") == before and time.monotonic() < end:
                time.sleep(0.05)
        end = time.monotonic() + 60
        while "POST /api/embed 499" not in server.log and time.monotonic() < end:
            time.sleep(0.1)
        assert "POST /api/embed 499, 0 texts" in server.log
        assert metric(server, "embed_batch_tokens_sum") - before < 50 * 8000, "most of it was computed"
        assert server.post("/api/embed", {"input": "the next one"})[0] == 200


def test_metrics_add_up_over_workers_and_outlive_one(tmp_path, tiny_folder):
    environ = {"EMBED_MODEL_PATH": str(tiny_folder), "EMBED_PRECISION": "fp32", "WEB_CONCURRENCY": "2"}
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    (metrics / "not ours").touch()
    with serving(tmp_path / "log", PROMETHEUS_MULTIPROC_DIR=str(metrics), **environ) as server:
        for _ in range(20):
            assert server.post("/api/embed", {"input": "one of twenty"})[0] == 200
        line = 'embed_requests_total{method="POST",route="/api/embed",status="200"}'
        assert metric(server, line) == 20
        wait_for(lambda: server.log.count(" loaded ") == 2)
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        victim = children.read_text().split()[0]
        os.kill(int(victim), signal.SIGKILL)
        end = time.monotonic() + 30
        while len(set(children.read_text().split()) - {victim}) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        assert metric(server, line) == 20
        left = list(metrics.glob(f"*/*_{victim}.db"))
        assert left
        assert sum(file.stat().st_size for file in left) < 1 << 16, "a dead worker keeps its room"
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:
            assert f'pid="{victim}"' not in answer.read().decode()
        assert server.stop() == 0
    assert [file.name for file in metrics.iterdir()] == ["not ours"]


def test_half_a_head_hears_that_it_took_too_long(server):
    answer, seconds = server.half_a_head.result(20)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert 9 < seconds < 15
