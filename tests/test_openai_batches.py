"""OpenAI's Files and Batches over HTTP, with a fake encoder; test_batches.py tests the layer below."""

import io
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import openai
import pytest

from app import create_app
from app.api.protocols.openai import lines as protocol_lines
from app.config import Settings
from app.engine.errors import Abandoned, NotFinite
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


def upload(client, content, headers=None, **form):
    if not isinstance(content, bytes):
        content = b"".join(json.dumps(one).encode() + b"\n" for one in content)
    form = {"purpose": "batch"} | form | {"file": (io.BytesIO(content), "corpus.jsonl")}
    return client.post("/v1/files", data=form, headers=headers)


def create(client, lines, **headers):
    body = {"input_file_id": upload(client, lines).json["id"], "endpoint": "/v1/embeddings"}
    return client.post("/v1/batches", json=body, headers=headers)


def finished(client, lines, **headers):
    """A batch of these lines, once it is done."""
    batch = create(client, lines, **headers)
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


def test_a_batch_expects_an_embedding_space_of_every_line(client, fake):
    """It is kept with the batch: the lines are answered later, perhaps by a server that was changed."""
    header, mean = "X-Embedding-Space", fake.space("mean")
    assert create(client, [line("a", input="a")], **{header: "another"}).status_code == 409
    lines = [line("a", input="a"), line("b", input="b", pooling="cls"), line("c", input="c", pooling="mean")]
    batch = finished(client, lines, **{header: mean})
    assert batch["embedding_space"] == mean
    assert [row["custom_id"] for row in lines_of(client, batch["output_file_id"])] == ["a", "c"]
    (refused,) = lines_of(client, batch["error_file_id"])
    assert (refused["custom_id"], refused["response"]["status_code"]) == ("b", 409)
    assert mean in refused["response"]["body"]["error"]["message"]
    fake.pooling = "cls"
    assert lines_of(client, finished(client, lines[:1], **{header: mean})["error_file_id"])


def test_lines_go_together_in_the_low_class_and_have_no_deadline(client, fake):
    finished(client, [line(str(number), input=f"text {number}") for number in range(40)])
    assert [len(call["texts"]) for call in fake.calls] == [40]
    assert fake.calls[0]["priority"] == "bulk"
    assert fake.calls[0]["patient"]


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


def broken(*_):
    raise RuntimeError("a bug")


@pytest.mark.parametrize("step", ["check_width", "written"])
def test_a_line_that_nobody_expected_fails_alone(client, monkeypatch, caplog, step):
    original = getattr(protocol_lines, step)

    def strange(*given):
        asked = given[-1]
        wanted = asked["dimensions"] if isinstance(asked, dict) else asked
        return broken() if wanted == 3 else original(*given)

    monkeypatch.setattr(protocol_lines, step, strange)
    batch = finished(client, [line("1", input="a"), line("2", input="b", dimensions=3), line("3", input="c")])
    assert batch["status"] == "completed"
    assert [row["custom_id"] for row in lines_of(client, batch["output_file_id"])] == ["1", "3"]
    (row,) = lines_of(client, batch["error_file_id"])
    assert (row["custom_id"], row["response"]["status_code"]) == ("2", 500)
    assert "a bug" in caplog.text


def test_a_text_that_the_engine_fails_on_fails_its_line_alone(client, fake):
    encode = fake.encode
    fake.encode = lambda texts, **options: broken() if "strange" in texts else encode(texts, **options)
    batch = finished(client, [line("1", input="a"), line("2", input="strange"), line("3", input="c")])
    assert [row["custom_id"] for row in lines_of(client, batch["output_file_id"])] == ["1", "3"]
    assert [row["custom_id"] for row in lines_of(client, batch["error_file_id"])] == ["2"]


def test_misspelt_fields_are_told_once_a_batch(client, caplog):
    rows = [line(str(number), input="a", dimension=4, user="b", more="c") for number in range(70)]
    batch = finished(client, [*rows, line("good", input="a")])
    assert batch["request_counts"]["completed"] == 71
    told = [message for message in caplog.messages if "ignored" in message]
    assert told == [f"{batch['id']}: unknown fields are ignored: dimension (dimensions?)"]


def test_a_batch_under_way_is_cancelled_within_a_second_or_two(client, fake):
    began = []

    def slow(*_, gone, **__):
        began.append(1)
        while not gone():
            time.sleep(0.01)
        raise Abandoned

    fake.encode = slow
    file = upload(client, [line("1", input="a")]).json
    batch = client.post("/v1/batches", json={"input_file_id": file["id"], "endpoint": "/v1/embeddings"}).json
    wait_for(lambda: began, 10)
    assert client.post(f"/v1/batches/{batch['id']}/cancel").json["status"] == "cancelling"
    wait_for(lambda: client.get(f"/v1/batches/{batch['id']}").json["status"] == "cancelled", 5)


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


def test_a_listing_goes_on_after_a_file_that_was_deleted(client):
    first, second, third = [upload(client, b"{}\n").json["id"] for _ in range(3)]
    client.delete(f"/v1/files/{second}")
    listed = client.get(f"/v1/files?after={second}").json
    assert [one["id"] for one in listed["data"]] == [first]
    listed = client.get(f"/v1/files?after={second}&order=asc").json
    assert [one["id"] for one in listed["data"]] == [third]
    assert [one["id"] for one in client.get("/v1/files?order=asc").json["data"]] == [first, third]


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/v1/files?after=x", "after"),
        ("/v1/files?after=batch_" + "0" * 32, "after"),
        ("/v1/batches?after=file-" + "0" * 32, "after"),
        ("/v1/files?order=random", "order"),
        ("/v1/files?limit=" + "9" * 5000, "limit"),
    ],
)
def test_what_is_wrong_with_a_listing_is_said(client, path, param):
    answer = client.get(path)
    assert (answer.status_code, answer.json["error"]["param"]) == (400, param)


def test_a_file_that_is_deleted_while_it_is_asked_for_is_not_there(client, app, tmp_path):
    id = upload(client, b"{}\n").json["id"]
    (tmp_path / "kept" / "files" / id).unlink()
    assert client.get(f"/v1/files/{id}/content").status_code == 404


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"purpose": "fine-tune"}, "purpose: must be batch"),
        (
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"},
            "expires_after: must be left out: files are kept until they are deleted",
        ),
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
        (BEGUN + b"abc", "the form ended early"),
        (BEGUN + b"abc\r\n--x--", "purpose: is required: batch"),
        (BEGUN + b"abc\r\n" + BEGUN + b"def\r\n--x--", "more than one part named 'file'"),
        (BEGUN.replace(b' name="file";', b"") + b"abc\r\n--x--", "has no name"),
        (b"--x\r\n\r\n\r\nabc\r\n--x--\r\n", "Content-Disposition"),
        (b'--x\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n', "cannot be read: 'utf-8' codec"),
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


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"a" * (2 << 20), "its boundary does not come"),
        (b"--x\r\n" + b"a" * (2 << 20), "the headers of a part are too large"),
        (BEGUN + b"abc\r\n--x--" + b"a" * (2 << 20), "too much follows its end"),
        (
            b"".join(
                b'--x\r\nContent-Disposition: form-data; name="%d"\r\n\r\nbatch\r\n' % number
                for number in range(17)
            ),
            "it has more than 16 parts",
        ),
    ],
    ids=("boundary", "headers", "end", "parts"),
)
def test_a_form_without_bounds_is_refused_with_a_sentence(client, body, words):
    answer = send(client, body)
    assert answer.status_code == 413
    assert answer.json["error"]["message"] == f"the form cannot be read: {words}"
    assert client.get("/v1/files").json["data"] == []


def test_the_purpose_may_come_after_the_file(client):
    body = BEGUN + b'abc\r\n--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x--'
    assert send(client, body).json["bytes"] == 3


def test_no_page_and_no_json_is_taken_for_a_file(client):
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = upload(client, b"{}\n", headers)
        assert answer.status_code == 403
        assert "EMBED_CORS_ORIGINS" in answer.json["error"]["message"]
    assert client.post("/v1/files", json={"file": "a"}).status_code == 415
    assert upload(client, b"{}\n", {"Content-Encoding": "gzip"}).status_code == 415
    assert client.get("/v1/files").json["data"] == []


@pytest.mark.parametrize("origins", [("https://good.example", "https://b.example"), ("*",)])
def test_a_page_that_is_let_in_may_upload(tmp_path, fake, origins):
    settings = Settings(model_name="fake", batch_dir=tmp_path / "kept", cors_origins=origins)
    client = create_app(settings, fake).test_client()
    headers = {"Origin": "https://good.example", "Sec-Fetch-Site": "cross-site"}
    assert upload(client, b"{}\n", headers).status_code == 200


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
    ],
)
def test_what_is_wrong_with_a_batch_is_said(client, body, param, status):
    answer = client.post("/v1/batches", json=body)
    assert answer.status_code == status
    assert answer.json["error"]["param"] == param


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"a": 1}, "the value of 'a' must be a string of at most 512 characters"),
        ({"a": "b" * 512, "c": "d" * 513}, "the value of 'c' must be a string of at most 512 characters"),
        ({"a" * 65: "b"}, f"the key '{'a' * 64}'... must have at most 64 characters"),
        ({str(number): "" for number in range(17)}, "has 17 pairs, the limit is 16"),
        ("a", "must be an object of strings, not a string"),
    ],
)
def test_what_is_wrong_with_metadata_is_said(client, metadata, words):
    body = {"input_file_id": "a", "endpoint": "/v1/embeddings", "metadata": metadata}
    answer = client.post("/v1/batches", json=body)
    assert answer.status_code == 400
    assert answer.json["error"]["message"] == f"metadata: {words}"


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


def test_a_relative_folder_is_the_servers(tmp_path, fake, monkeypatch):
    monkeypatch.chdir(tmp_path)
    client = create_app(Settings(model_name="fake", batch_dir=Path("kept")), fake).test_client()
    id = upload(client, b"abc").json["id"]
    with client.get(f"/v1/files/{id}/content") as answer:
        assert answer.data == b"abc"


def test_a_folder_that_cannot_be_used_is_told_to_the_log_alone(tmp_path, fake, caplog):
    (tmp_path / "file").write_text("")
    client = create_app(Settings(model_name="fake", batch_dir=tmp_path / "file"), fake).test_client()
    answer = client.get("/v1/files")
    assert answer.status_code == 503
    assert answer.json["error"]["message"] == "the server's folder for batches cannot be used"
    assert str(tmp_path) in caplog.text


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
    """The worker is killed, then the whole server; each row still is there once, in order, with a vector."""
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
