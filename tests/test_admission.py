"""Refusals out of a request's head alone: as Flask would answer, or not at all."""

import json
import logging
import socket
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import create_app
from app.api.admission import Admission
from app.config import Settings
from app.engine.embeddings import PRIORITIES
from tests.server import more_config, serving, wait_for

BODY = b'{"input": "a"}'
HEAD = b"POST /api/embed HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\nX-Request-ID: id-7\r\n\r\n"
PATHS = ("/api/embed", "/v1/embeddings", "/embed", "/api/embeddings", "/rerank", "/v1/rerank", "/api/score")


@pytest.fixture
def admission(app, fake) -> Admission:
    fake.turns(full=frozenset(PRIORITIES))
    return Admission(app)


def parse(answer: bytes) -> tuple[str, dict[str, str], dict]:
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    return line, dict(field.split(": ", 1) for field in fields), json.loads(body)


@pytest.mark.parametrize("path", PATHS)
def test_it_says_what_flask_would_say(admission, client, path):
    head = HEAD.replace(b"/api/embed", path.encode())
    answer, size = admission.refusal(head)
    line, headers, body = parse(answer)
    usual = client.post(path, json={"input": "a"}, headers={"X-Request-ID": "id-7"})
    assert line == "HTTP/1.1 503 Service Unavailable"
    assert usual.status_code == 503
    assert body == usual.json
    assert {name: headers[name] for name in usual.headers.keys()} == dict(usual.headers)  # noqa: SIM118
    assert set(headers) - set(usual.headers.keys()) == {"Date", "Connection"}
    assert headers["Retry-After"] == "7"
    assert size == len(head) + 14


def test_it_lets_in_where_there_is_room(app):
    assert not Admission(app).refusal(HEAD)
    assert Admission(app).refusal(HEAD, surplus=True)


@pytest.mark.parametrize(("slow", "others", "seats"), [(20, 1000, 11), (1000, 20, 13)])
def test_neither_class_takes_every_thread(app, client, slow, others, seats):
    """A class that has its share of the threads is refused, by its heads and by Flask; the other is not."""
    admission = Admission(app, threads=16)
    taken = app.extensions["seats"]
    heads = {size: HEAD.replace(b"Length: 14", b"Length: %d" % size) for size in (slow, others)}
    for _ in range(seats):
        assert not admission.refusal(heads[slow])
        assert taken.take("interactive" if slow == 20 else "bulk")
    assert admission.refusal(heads[slow])
    assert not admission.refusal(heads[others])
    bodies = {size: json.dumps({"input": (size - 13) * "a"}) for size in (slow, others)}
    for _ in range(20):  # each gives its own back
        answer = {
            size: client.post("/api/embed", data=body, content_type="application/json").status_code
            for size, body in bodies.items()
        }
        assert answer == {slow: 503, others: 200}


@pytest.mark.parametrize(
    ("full", "length", "refused"),
    [
        ("bulk", 512, False),
        ("bulk", 513, True),
        ("interactive", 512, True),
        ("interactive", 513, False),
    ],
)
def test_a_full_queue_of_one_class_refuses_nothing_of_the_other(app, client, fake, full, length, refused):
    """And Flask decides as the head alone does."""
    fake.turns(full=frozenset({full}))
    head = HEAD.replace(b"Length: 14", b"Length: %d" % length)
    assert bool(Admission(app).refusal(head)) == refused
    body = json.dumps({"input": (length - 13) * "a"}).encode()
    assert len(body) == length
    answer = client.post("/api/embed", data=body, content_type="application/json")
    assert answer.status_code == (503 if refused else 200)


@pytest.mark.parametrize(
    ("part", "other"),
    [
        (b"POST /api/embed", b"GET /api/embed"),
        (b"POST /api/embed", b"POST /nothing"),
        (b"POST /api/embed", b"POST /tokenize"),  # does not wait for the encoder
        (b"POST /api/embed", b"POST /api/embed?a=b"),
        (b"HTTP/1.1", b"HTTP/3"),
        (b"Host: x", b"Host: x\r\nOrigin: http://a"),
        (b"Host: x", b"Host: x\r\nTransfer-Encoding: chunked"),
        (b"Host: x", b"Host: x\r\nExpect: 100-continue"),
        (b"Host: x", b"Host: x\r\nhost: y"),
        (b"Host: x", b"Host: x\r\n folded"),
        (b"Host: x", b"Host x"),
        (b"Length: 14", b"Length: 1000000"),  # a client that is still sending hears nothing
        (b"Length: 14", b"Length: -1"),
        (b"Length: 14", b"Length: " + 5000 * b"0"),
        (b"\r\n\r\n", b"\r\n"),
    ],
)
def test_what_is_not_plain_is_for_the_parser(admission, part, other):
    assert admission.refusal(HEAD)
    assert not admission.refusal(HEAD.replace(part, other))


@settings(max_examples=2000, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_head_is_too_strange(admission, data):
    """A mistake here would be one in the loop that accepts for everybody."""
    start, end = sorted(data.draw(st.integers(0, len(HEAD))) for _ in range(2))
    admission.refusal(HEAD[:start] + data.draw(st.binary(max_size=40)) + HEAD[end:])


def test_who_may_not_come_in_does_not_learn_how_busy_it_is(fake):
    fake.turns(full=frozenset(PRIORITIES))
    admission = Admission(create_app(Settings(model_name="fake", api_keys=("one", "two")), fake))
    assert not admission.refusal(HEAD)
    assert not admission.refusal(HEAD.replace(b"Host: x", b"Authorization: Bearer three"))
    assert admission.refusal(HEAD.replace(b"Host: x", b"Authorization: Bearer two"))


def test_a_refusal_is_counted_and_has_a_line(admission, client, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("app"), "propagate", True)
    line = 'embed_requests_total{method="POST",route="/api/embed",status="503"}'

    def count() -> float:
        found = [each for each in client.get("/metrics").text.splitlines() if each.startswith(line)]
        return float(found[0].split()[-1]) if found else 0

    before = count()
    with caplog.at_level(logging.INFO, "app"):
        answer, _ = admission.refusal(HEAD.replace(b"id-7", b"not an id"))
    _, headers, _ = parse(answer)
    assert len(headers["X-Request-ID"]) == 32
    assert count() == before + 1
    assert caplog.messages[0].startswith("POST /api/embed 503, 0 texts, 0 tokens, ")
    assert headers["X-Request-ID"] in caplog.messages[0]


CLOSE_SECONDS = 40.0  # so long that nothing below comes of them


@pytest.fixture(scope="module")
def busy(tmp_path_factory, tiny_folder):
    """A server that is full as soon as it is ready, by its own account."""
    folder = tmp_path_factory.mktemp("busy")
    flags = more_config(
        folder,
        f"""
import app.worker
app.worker.CLOSE_SECONDS = {CLOSE_SECONDS}
_load = post_worker_init

def post_worker_init(worker):
    _load(worker)
    from app.engine.embeddings import PRIORITIES, Load
    type(worker.wsgi.extensions["encoder"]).load_state = property(
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
    """And no reset: the answer must not be lost with it."""
    with busy.connect() as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(0.05)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as file:
            line, headers, body = parse(file.read())
    assert line == "HTTP/1.1 503 Service Unavailable"
    assert len(json.dumps(body, separators=(",", ":"))) == int(headers["Content-Length"])


def test_a_refused_client_leaves_nothing_behind(busy):
    (worker,) = busy.workers
    files = Path(f"/proc/{worker}/fd")
    before = len(list(files.iterdir()))
    kept = [busy.connect(HEAD + BODY) for _ in range(20)]
    assert all(connection.recv(12) == b"HTTP/1.1 503" for connection in kept)
    wait_for(lambda: len(list(files.iterdir())) <= before, CLOSE_SECONDS / 2)  # not when they close
    for _ in range(50):
        assert busy.ask("a") == 503
        busy.connect(HEAD[:30]).close()
        busy.connect(HEAD).close()
    wait_for(lambda: len(list(files.iterdir())) <= before, CLOSE_SECONDS / 2)
    assert "Traceback" not in busy.log
