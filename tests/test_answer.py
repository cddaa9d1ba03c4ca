"""How much memory answers take, and how large answers are written."""

import json
import time

import pytest

from app import create_app
from app.api import answer, ask, room
from app.api.room import Room
from app.config import Settings
from app.engine.errors import Abandoned

WORDS = "one two three four five six"
BODY = {"input": [WORDS] * 20, "return_colbert_vecs": True, "return_sparse": True}


@pytest.fixture
def large(monkeypatch) -> None:
    """Make every answer count as large."""
    monkeypatch.setattr(answer, "SMALL_ANSWER", 0)


def test_a_large_answer_is_the_same_as_a_small_one(client, monkeypatch):
    small = client.post("/api/embed", json=BODY)
    monkeypatch.setattr(answer, "SMALL_ANSWER", 0)
    large = client.post("/api/embed", json=BODY)
    assert "Content-Length" in small.headers
    assert "Content-Length" not in large.headers
    assert "serialize" in small.headers["Server-Timing"]
    assert {**small.json, "total_duration": 0} == {**large.json, "total_duration": 0}


def test_a_large_answer_is_written_as_it_is_read(app, client, large, monkeypatch):
    """No part of it becomes JSON before somebody reads it."""
    monkeypatch.setattr(answer, "PIECE_BYTES", 1000)
    written = []
    one = answer._dumps
    monkeypatch.setattr(answer, "_dumps", lambda content: written.append(1) or one(content))
    with client.post("/api/embed", json=BODY, buffered=False) as response:
        pieces = response.iter_encoded()
        first = next(pieces)
        begun = len(written)
        assert b'{"model"' in first
        rest = b"".join(pieces)
    assert len(written) > 3 * begun
    assert len(json.loads(first + rest)["colbert_vecs"]) == 20


def test_large_answers_have_a_common_bound(fake, large):
    settings = Settings(model_name="fake", max_output_numbers=4000)
    app = create_app(settings, fake)
    client, held = app.test_client(), []
    numbers = 20 * 16 + 2 * 160 + 20 * 7 * 16
    assert 4000 / 2 < numbers < 4000
    for _ in range(4 * 4000 // numbers):
        held.append(client.post("/api/embed", json=BODY, buffered=False))
        assert held[-1].status_code == 200
    refused = client.post("/api/embed", json=BODY)
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "7"
    assert len(fake.calls) == len(held) + 1  # it was asked too, and refused before it computed
    held.pop().close()  # one client has read its answer, or left
    with client.post("/api/embed", json=BODY) as response:
        assert response.status_code == 200
    for response in held:
        response.close()
    assert app.extensions["answers"]._held == 0


def test_what_a_request_that_fails_had_taken_is_given_back(app, client, fake, large):
    fake.fails_after_expecting = Abandoned()
    for _ in range(3):
        assert client.post("/api/embed", json=BODY).status_code == 499
    assert app.extensions["answers"]._held == 0


def test_an_answer_larger_than_any_is_refused(fake):
    client = create_app(Settings(model_name="fake", max_output_numbers=2000), fake).test_client()
    refused = client.post("/api/embed", json=BODY)
    assert refused.status_code == 422
    assert "2880 numbers, the limit is 2000" in refused.json["error"]


def test_room_is_given_back_to_the_system_when_most_of_it_is_free(monkeypatch):
    trimmed = []
    monkeypatch.setattr(room, "_trim", lambda: trimmed.append(1))
    held = Room(1 << 30)
    for _ in range(64):
        assert held.hold(1 << 20)
    for left in range(64, 8, -1):
        held.release(1 << 20)
        assert not trimmed, left
    held.release(1 << 20)
    assert len(trimmed) == 1
    for _ in range(7):
        held.release(1 << 20)
    assert len(trimmed) == 1
    assert held.hold(1 << 30)
    assert not held.hold(1)


def test_tokens_of_one_answer_are_bounded(client, monkeypatch):
    monkeypatch.setattr(ask, "MOST_TOKENS", 100)
    answer = client.post("/tokenize", json={"inputs": ["a " * 101]})
    assert answer.status_code == 422
    assert "the limit is 100" in answer.json["error"]
    assert client.post("/tokenize", json={"inputs": ["a b"]}).json[0][1]["text"] == "a"


def test_tokenising_ends_when_the_client_has_gone(tiny, monkeypatch):
    monkeypatch.setattr("app.engine.job.LOOK_SECONDS", -1.0)
    start = time.perf_counter()
    with pytest.raises(Abandoned):
        tiny.tokenize(["a " * 1000] * 500, True, 1 << 30, gone=lambda: time.perf_counter() > start + 0.05)
    assert time.perf_counter() < start + 2
    with pytest.raises(Abandoned):
        tiny.encode(["a " * 1000] * 500, gone=lambda: True)
