"""OpenAI's Files and Batches by HTTP, over a fake encoder; what is beneath is in test_batches.py."""

import io
import json
import os
import signal
import time
from dataclasses import replace

import numpy as np
import openai
import pytest

from app import create_app
from app.config import Settings
from app.engine.errors import NotFinite
from tests.server import serving, starting, wait_for

TEXTS = ["one two", "three"]


@pytest.fixture
def app(tmp_path, fake):
    fake.load = fake.close = lambda: None
    app = create_app(Settings(model_name="fake", max_texts=64, batch_dir=tmp_path / "kept"), fake)
    service = app.extensions["service"]
    assert service.load()
    yield app
    service.close()


def line(custom_id, **body):
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body}


def upload(client, content, **form):
    if not isinstance(content, bytes):
        content = b"".join(json.dumps(one).encode() + b"\n" for one in content)
    form = {"purpose": "batch"} | form | {"file": (io.BytesIO(content), "corpus.jsonl")}
    return client.post("/v1/files", data=form)


def finished(client, lines):
    """A batch of these lines, when it is done."""
    file = upload(client, lines).json
    batch = client.post("/v1/batches", json={"input_file_id": file["id"], "endpoint": "/v1/embeddings"})
    assert batch.status_code == 200, batch.text
    end = time.monotonic() + 30
    while time.monotonic() < end:
        found = client.get(f"/v1/batches/{batch.json['id']}").json
        if found["status"] in ("completed", "failed", "expired", "cancelled"):
            return found
        time.sleep(0.02)
    raise AssertionError(found)


def lines_of(client, id):
    with client.get(f"/v1/files/{id}/content") as answer:
        return [json.loads(row) for row in answer.text.splitlines()]


def test_each_line_is_answered_as_its_request_would_be(client):
    bodies = [
        {"input": TEXTS},
        {"input": "a", "dimensions": 4, "model": "fake"},
        {"input": "b", "encoding_format": "base64", "pooling": "cls"},
        {"input": "c", "normalized": False},
        {"input": [{"text": "d"}], "truncate": "START"},
    ]
    batch = finished(client, [line(f"row-{number}", **body) for number, body in enumerate(bodies)])
    assert (batch["status"], batch["error_file_id"]) == ("completed", None)
    assert batch["request_counts"] == {"total": 5, "completed": 5, "failed": 0}
    found = lines_of(client, batch["output_file_id"])
    assert [row["custom_id"] for row in found] == [f"row-{number}" for number in range(5)]
    for row, body in zip(found, bodies, strict=True):
        assert row["error"] is None
        assert row["response"]["status_code"] == 200
        assert row["response"]["body"] == client.post("/v1/embeddings", json=body).json
    assert len({row["id"] for row in found}) == 5


def test_lines_go_together_and_in_the_low_class(client, fake):
    finished(client, [line(str(number), input=f"text {number}") for number in range(40)])
    assert [len(call["texts"]) for call in fake.calls] == [40]
    assert fake.calls[0]["priority"] == "bulk"


def test_lines_that_cannot_be_answered_are_in_a_file_of_their_own(client):
    good = line("good", input="a")
    bad = {
        "no input": {},
        "other model": {"input": "a", "model": "text-embedding-3-small"},
        "too wide": {"input": "a", "dimensions": 17},
        "too long": {"input": ["a", "word " * 9], "truncate": False},
        "token ids": {"input": [[1, 2]]},
    }
    batch = finished(
        client,
        [good, *(line(name, **body) for name, body in bad.items()), line("too", input="b", truncate=False)],
    )
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 7, "completed": 2, "failed": 5}
    assert [row["custom_id"] for row in lines_of(client, batch["output_file_id"])] == ["good", "too"]
    for row in lines_of(client, batch["error_file_id"]):
        answer = client.post("/v1/embeddings", json=bad[row["custom_id"]])
        assert row["response"]["status_code"] == answer.status_code
        assert row["response"]["body"] == answer.json


def test_a_text_without_a_finite_vector_fails_its_line_alone(client, fake):
    encode = fake.encode

    def strange(texts, **options):
        if "strange" in texts:
            raise NotFinite([texts.index("strange")])
        return encode(texts, **options)

    fake.encode = strange
    batch = finished(client, [line("1", input="a"), line("2", input="strange"), line("3", input="c")])
    assert [row["custom_id"] for row in lines_of(client, batch["output_file_id"])] == ["1", "3"]
    (row,) = lines_of(client, batch["error_file_id"])
    assert row["response"]["status_code"] == 500
    assert row["response"]["body"]["error"]["message"] == "the model gave no finite vector for text 0"


def test_a_file_that_is_none_fails_the_batch(client):
    batch = finished(client, b'{"custom_id": "1"}\nnothing\n')
    assert batch["status"] == "failed"
    assert {one["line"] for one in batch["errors"]["data"]} == {1, 2}


def test_files_are_listed_read_and_deleted(client):
    first, second = upload(client, b"first\n").json, upload(client, b"second\n").json
    assert first == first | {"object": "file", "filename": "corpus.jsonl", "bytes": 6, "purpose": "batch"}
    listed = client.get("/v1/files").json
    assert [one["id"] for one in listed["data"]] == [second["id"], first["id"]]
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == (second["id"], first["id"], False)
    page = client.get("/v1/files?limit=1").json
    assert ([one["id"] for one in page["data"]], page["has_more"]) == ([second["id"]], True)
    page = client.get(f"/v1/files?limit=1&after={second['id']}&purpose=batch").json
    assert ([one["id"] for one in page["data"]], page["has_more"]) == ([first["id"]], False)
    assert client.get("/v1/files?purpose=batch_output").json["data"] == []
    assert client.get(f"/v1/files/{first['id']}").json == first
    with client.get(f"/v1/files/{first['id']}/content") as answer:
        assert answer.data == b"first\n"
    assert client.delete(f"/v1/files/{first['id']}").json == {
        "id": first["id"],
        "object": "file",
        "deleted": True,
    }
    for path in (f"/v1/files/{first['id']}", f"/v1/files/{first['id']}/content"):
        assert client.get(path).status_code == 404


def test_batches_are_listed_and_cancelled(client, fake):
    fake.encode = lambda *_, **__: time.sleep(1)  # until it is over
    file = upload(client, [line("1", input="a")]).json
    body = {"input_file_id": file["id"], "endpoint": "/v1/embeddings", "metadata": {"name": "corpus"}}
    made = [client.post("/v1/batches", json=body).json for _ in range(3)]
    assert made[0]["metadata"] == {"name": "corpus"}
    assert client.delete(f"/v1/files/{file['id']}").status_code == 409
    listed = client.get("/v1/batches?limit=2").json
    assert [one["id"] for one in listed["data"]] == [made[2]["id"], made[1]["id"]]
    assert client.get(f"/v1/batches?after={listed['last_id']}").json["data"][0]["id"] == made[0]["id"]
    for one in made:
        assert client.post(f"/v1/batches/{one['id']}/cancel").json["status"] in ("cancelling", "cancelled")


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"purpose": "fine-tune"}, "purpose: must be batch"),
        ({"purpose": "b" * 5000}, "longer than 4096 bytes"),
    ],
)
def test_what_is_wrong_with_a_form_is_said(client, form, words):
    answer = upload(client, b"{}\n", **form)
    assert answer.status_code == 400
    assert words in answer.json["error"]["message"]
    assert client.get("/v1/files").json["data"] == []


def send(client, body, kind="multipart/form-data; boundary=x", **headers):
    return client.post("/v1/files", data=body, content_type=kind, headers=headers)


BEGUN = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (BEGUN + b"abc", "ended early"),
        (b"--x\r\n\r\n\r\nabc\r\n--x--\r\n", "Content-Disposition"),
        (b"--x--\r\n", "file: is required"),
        (b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x--', "file: is required"),
        (
            BEGUN + b'abc\r\n--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nvision\r\n--x--',
            "purpose: must be batch",
        ),
    ],
)
def test_a_broken_form_leaves_nothing(client, body, words):
    answer = send(client, body)
    assert answer.status_code == 400
    assert words in answer.json["error"]["message"]
    assert client.get("/v1/files").json["data"] == []


def test_the_purpose_may_come_after_the_file(client):
    body = BEGUN + b'abc\r\n--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x--'
    assert send(client, body).json["bytes"] == 3


def test_no_page_and_no_json_is_taken_for_a_file(client):
    assert send(client, BEGUN + b"abc\r\n--x--", Origin="https://evil.example").status_code == 415
    assert client.post("/v1/files", json={"file": "a"}).status_code == 415


def test_a_file_has_a_limit(client, monkeypatch):
    monkeypatch.setattr("app.api.protocols.openai.files.MOST_FILE_BYTES", 100_000)
    assert upload(client, b"a" * 100_000).status_code == 200
    answer = upload(client, b"a" * 100_001)
    assert answer.status_code == 413
    assert len(client.get("/v1/files").json["data"]) == 1


@pytest.mark.parametrize(
    ("body", "param", "status"),
    [
        ({}, "input_file_id", 400),
        ({"input_file_id": "file-1"}, "endpoint", 400),
        ({"input_file_id": "file-1", "endpoint": "/v1/chat/completions"}, "endpoint", 400),
        ({"input_file_id": "../../etc/passwd", "endpoint": "/v1/embeddings"}, "id", 404),
        (
            {"input_file_id": "a", "endpoint": "/v1/embeddings", "completion_window": "1h"},
            "completion_window",
            400,
        ),
        ({"input_file_id": "a", "endpoint": "/v1/embeddings", "metadata": {"a": 1}}, "metadata", 400),
    ],
)
def test_what_is_wrong_with_a_batch_is_said(client, body, param, status):
    answer = client.post("/v1/batches", json=body)
    assert answer.status_code == status
    assert answer.json["error"]["param"] == param


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=101", "limit=-1"])
def test_a_limit_is_checked(client, query):
    assert client.get(f"/v1/batches?{query}").json["error"]["param"] == "limit"


def test_a_full_disk_is_said(client, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.bulk.batches.store.create_locked", full)
    answer = upload(client, b"abc")
    assert answer.status_code == 503
    assert "No space left on device" in answer.json["error"]["message"]


def test_without_a_folder_there_are_none(fake):
    client = create_app(Settings(model_name="fake"), fake).test_client()
    for answer in (client.get("/v1/files"), client.get("/v1/batches"), upload(client, b"{}")):
        assert answer.status_code == 404
        assert "EMBED_BATCH_DIR" in answer.json["error"]["message"]


def test_a_folder_that_cannot_be_used_is_said_at_the_start(tmp_path, fake, caplog):
    (tmp_path / "file").write_text("")
    fake.load = lambda: None
    app = create_app(replace(Settings(), model_name="fake", batch_dir=tmp_path / "file"), fake)
    assert not app.extensions["service"].load()
    assert "EMBED_BATCH_DIR" in caplog.text


ROWS = 20_000
WORDS = ["library", "机器学习", "Bibliothek", "weather", "tiempo"]


@pytest.mark.faults
def test_openais_client_finishes_a_batch_across_kills(tmp_path, demo_folder):
    """Once the worker is killed, once the whole server; each row is there once, in order, with its vector."""
    texts = [f"{number} {WORDS[number % len(WORDS)]}" for number in range(ROWS)]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        "".join(json.dumps(line(f"row-{row}", input=text)) + "\n" for row, text in enumerate(texts))
    )
    environ = {
        "EMBED_MODEL_PATH": str(demo_folder),
        "EMBED_PRECISION": "fp32",
        "EMBED_BATCH_DIR": str(tmp_path / "kept"),
    }

    def progress(client, id, least):
        found = client.batches.retrieve(id)
        return found.status == "completed" or (found.request_counts.completed >= least and found)

    with starting(tmp_path / "first", **environ) as server:
        server.wait_until_ready()
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            file = client.files.create(file=corpus, purpose="batch")
            batch = client.batches.create(
                input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h"
            )
            wait_for(lambda: progress(client, batch.id, 500), 120)
            (worker,) = server.workers
            os.kill(worker, signal.SIGKILL)
            wait_for(lambda: progress(client, batch.id, 4000), 240)
            (worker,) = server.workers
            os.kill(server.process.pid, signal.SIGKILL)
            os.kill(worker, signal.SIGKILL)
    with serving(tmp_path / "second", **environ) as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            wait_for(lambda: client.batches.retrieve(batch.id).status == "completed", 600)
            done = client.batches.retrieve(batch.id)
            assert done.request_counts.to_dict() == {"total": ROWS, "completed": ROWS, "failed": 0}
            assert done.error_file_id is None
            rows = [json.loads(row) for row in client.files.content(done.output_file_id).text.splitlines()]
        assert [row["custom_id"] for row in rows] == [f"row-{row}" for row in range(ROWS)]
        some = range(0, ROWS, 997)
        found = [rows[row]["response"]["body"]["data"][0]["embedding"] for row in some]
        assert found == pytest.approx(np.array(server.vectors(input=[texts[row] for row in some])), abs=1e-5)
        assert "batch_" in (tmp_path / "second").read_text()
