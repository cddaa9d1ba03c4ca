"""Requests refused before Flask: the same answer as Flask's, but as early as possible."""

import json
import logging
import socket
import time
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from app import create_app
from app.api.admission import Seats
from app.config import Settings
from app.engine.embeddings import PRIORITIES
from tests.server import more_config, serving, wait_for

BODY = b'{"input": "a"}'
HEAD = b"POST /api/embed HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\nX-Request-ID: id-7\r\n\r\n"
PATHS = ("/api/embed", "/v1/embeddings", "/embed", "/api/embeddings", "/rerank", "/v1/rerank", "/api/score")


@pytest.fixture
def full(fake) -> None:
    fake.turns(full=frozenset(PRIORITIES))


@pytest.fixture
def walks(app) -> list[str]:
    """The paths of requests that reached Flask."""
    paths: list[str] = []

    def walk(environ, start_response, through=app.wsgi_app._next):
        paths.append(environ["PATH_INFO"])
        return through(environ, start_response)

    app.wsgi_app._next = walk
    return paths


def post(client: FlaskClient, size: int, path: str = "/api/embed") -> int:
    body = json.dumps({"input": (size - 13) * "a"}).encode()
    assert len(body) == size
    with client.post(path, data=body, content_type="application/json") as answer:
        return answer.status_code


@pytest.mark.parametrize("path", PATHS)
def test_it_says_what_flask_would_say(full, client, walks, path):
    headers = {"X-Request-ID": "id-7"}
    answer = client.post(path, json={"input": "a"}, headers=headers)
    assert not walks
    usual = client.post(path, json={"input": "a"}, headers=headers | {"Origin": "http://a"})
    assert walks == [path]
    assert (answer.status, answer.json) == (usual.status, usual.json)
    assert dict(answer.headers) == dict(usual.headers)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "7"
    assert answer.headers["X-Request-ID"] == "id-7"


@pytest.mark.parametrize(("slow", "others", "seats"), [(20, 1000, 11), (1000, 20, 13)])
def test_no_kind_takes_every_thread(app, client, slow, others, seats):
    taken: Seats = app.extensions["seats"]
    taken.threads = 16
    for _ in range(seats):
        assert post(client, slow) == 200
        assert taken.take("interactive" if slow == 20 else "bulk")
    for _ in range(20):  # each one returns its seat
        assert (post(client, slow), post(client, others)) == (503, 200)


def test_some_threads_are_for_health_checks_only(app, client):
    taken: Seats = app.extensions["seats"]
    taken.threads = 32
    for kind, seats in (("interactive", 10), ("bulk", 10), ("other", 10)):
        assert all(taken.take(kind) for _ in range(seats))
    assert not any(taken.take(kind) for kind in ("interactive", "bulk", "other"))
    assert post(client, 20) == 503
    answer = client.get("/apidocs/")
    assert answer.status_code == 503
    assert answer.json["error"].startswith("there is no room")
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


def test_one_thread_is_enough_to_serve(app, client):
    app.extensions["seats"].threads = 1
    assert post(client, 20) == post(client, 1000) == 200
    with client.get("/") as answer:
        assert answer.status_code == 200


def test_a_thread_is_taken_until_the_answer_is_read(app):
    """Also by a client that reads slowly, because the server closes an answer once it is sent."""
    taken: Seats = app.extensions["seats"]
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/api/tags", "SERVER_NAME": "a", "SERVER_PORT": "1"}
    environ |= {"wsgi.url_scheme": "http", "wsgi.input": None}
    answer = app(environ, lambda *_: None)
    assert taken._taken["other"] == 1
    assert b"models" in b"".join(answer)
    answer.close()
    assert taken._taken["other"] == 0


@pytest.mark.parametrize(
    ("full", "length", "refused"),
    [
        ("bulk", 512, False),
        ("bulk", 513, True),
        ("interactive", 512, True),
        ("interactive", 513, False),
    ],
)
def test_a_full_queue_of_one_class_refuses_nothing_of_the_other(client, fake, walks, full, length, refused):
    fake.turns(full=frozenset({full}))
    assert post(client, length) == (503 if refused else 200)
    assert bool(walks) != refused


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/nothing", {"json": {}}, 404),
        ("/api/show", {"json": {"model": "fake"}}, 200),  # it does not wait for the encoder
        (
            "/api/embed",
            {"json": {"input": 100_000 * "a"}},
            503,
        ),  # a client that is still sending would not read it
        ("/api/embed", {"json": {"input": "a"}, "headers": {"Transfer-Encoding": "chunked"}}, 503),
        ("/api/embed", {"method": "GET"}, 405),
        ("/api/embed/", {"method": "GET"}, 405),
    ],
)
def test_what_is_not_plain_is_for_flask(full, client, walks, path, options, status):
    assert client.open(path, **{"method": "POST"} | options).status_code == status
    assert walks == [path]


def test_who_may_not_come_in_does_not_learn_how_busy_it_is(full, fake):
    client = create_app(Settings(model_name="fake", api_keys=("one", "two")), fake).test_client()

    def status(**headers: str) -> int:
        return client.post("/api/embed", json={"input": "a"}, headers=headers).status_code

    assert status() == status(Authorization="Bearer three") == 401
    assert status(Authorization="Bearer two") == 503


def test_a_refusal_is_counted_and_has_a_line(full, client, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("app"), "propagate", True)
    line = 'embed_requests_total{method="POST",route="/api/embed",status="503"}'

    def count() -> float:
        found = [each for each in client.get("/metrics").text.splitlines() if each.startswith(line)]
        return float(found[0].split()[-1]) if found else 0

    before = count()
    with caplog.at_level(logging.INFO, "app"):
        answer = client.post("/api/embed", json={"input": "a"}, headers={"X-Request-ID": "not an id"})
    number = answer.headers["X-Request-ID"]
    assert len(number) == 32
    assert caplog.messages[0].startswith("POST /api/embed 503, 0 texts, 0 tokens, ")
    assert number in caplog.messages[0]
    assert count() == before + 1


CLOSE_SECONDS = 40.0  # so long that nothing below is caused by them


@pytest.fixture(scope="module")
def busy(tmp_path_factory, tiny_folder):
    """A server that reports itself as full as soon as it is ready."""
    folder = tmp_path_factory.mktemp("busy")
    flags = more_config(
        folder,
        f"""
import app.server.worker
app.server.worker.CLOSE_SECONDS = {CLOSE_SECONDS}
_load = post_worker_init

def post_worker_init(worker):
    _load(worker)
    from app.engine.embeddings import PRIORITIES, Load
    type(worker.application.extensions["encoder"]).load_state = property(
        lambda _: Load(ready=True, full=frozenset(PRIORITIES if os.path.exists("{folder}/full") else ()))
    )
""",
    )
    environ = {"EMBED_MODEL_PATH": str(tiny_folder), "EMBED_PRECISION": "fp32"}
    with serving(folder / "log", *flags, **environ) as server:
        (folder / "full").touch()
        yield server


@pytest.mark.parametrize(
    "parts",
    [
        [HEAD + BODY],
        [HEAD, BODY],
        [HEAD + BODY[:5], BODY[5:]],
        [HEAD[:20], HEAD[20:] + BODY],
        [HEAD],
        [HEAD + BODY + HEAD + BODY],
    ],
    ids=["whole", "head, body", "cut body", "cut head", "no body", "two at once"],
)
def test_a_refused_client_hears_all_of_it_however_it_sends(busy, parts):
    """The connection is not reset, as the answer would be lost."""
    with busy.connect() as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(0.05)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as file:
            head, _, body = file.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Content-Length: %d" % len(body) in head


def test_a_refused_client_leaves_nothing_behind(busy):
    (worker,) = busy.workers
    files = Path(f"/proc/{worker}/fd")
    before = len(list(files.iterdir()))
    for _ in range(50):
        assert busy.ask("a") == 503
        busy.connect(HEAD[:30]).close()
        busy.connect(HEAD).close()
    wait_for(lambda: len(list(files.iterdir())) <= before, CLOSE_SECONDS / 2)  # before their time is up
    assert "Traceback" not in busy.log
