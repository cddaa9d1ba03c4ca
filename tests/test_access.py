"""Access by API key, what is logged and counted, and the headers of answers."""

import json
import logging
import logging.config
import re
from dataclasses import replace

import pytest

from app import create_app
from app.api.health import STUCK_SECONDS
from app.config import ConfigError, Settings
from app.engine.embeddings import BatchStats
from app.logs import log_config

SECRET = "first-key"


@pytest.fixture
def locked(settings, fake):
    """A client of an application with two keys."""
    return create_app(replace(settings, api_keys=(SECRET, "second-key")), fake).test_client()


@pytest.mark.parametrize("key", [SECRET, "second-key"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_each_key_opens(locked, key, scheme):
    headers = {"Authorization": f"{scheme} {key}"}
    assert locked.post("/api/embed", json={"input": "a"}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {SECRET}", SECRET, "Bearer ключ"]
)
@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings", "/embed", "/api/score"])
def test_without_a_key_nothing_opens(locked, fake, header, path):
    headers = {} if header is None else {"Authorization": header.encode().decode("latin-1")}
    answer = locked.post(path, json={"input": "a"}, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    error = answer.json["error"]
    assert "Authorization: Bearer" in (error["message"] if path.startswith("/v1/") else error)
    assert not fake.calls


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/readyz", "/health", "/apidocs/", "/redoc", "/apispec_1.json"]
)
def test_health_and_pages_need_no_key(locked, path):
    assert locked.get(path).status_code == 200


def test_keys_are_read_again_when_their_file_changes(settings, fake, tmp_path, monkeypatch):
    (file := tmp_path / "keys").write_text("old")
    monkeypatch.setattr("app.api.auth.LOOK_SECONDS", 0.0)
    client = create_app(replace(settings, api_keys_file=file, api_keys=("fixed",)), fake).test_client()

    def opens(key: str) -> bool:
        headers = {"Authorization": f"Bearer {key}"}
        return client.post("/api/embed", json={"input": "a"}, headers=headers).status_code == 200

    assert opens("old")
    for broken in ("", "\n\n", "ключ"):
        file.write_text(broken)
        assert opens("old")
    file.unlink()
    assert opens("old")
    (other := tmp_path / "others").write_text("new")
    file.symlink_to(other)  # as Kubernetes replaces what it mounts
    assert opens("new")
    assert not opens("old")
    assert opens("fixed")


def test_what_is_open_is_a_setting(settings, fake, locked):
    assert locked.get("/metrics").status_code == 401
    other = create_app(replace(settings, api_keys=(SECRET,), open_paths=("metrics",)), fake).test_client()
    assert other.get("/metrics").status_code == 200
    assert other.get("/apidocs/").status_code == 401


def test_keys_come_from_a_file_too(tmp_path, settings, fake):
    file = tmp_path / "keys"
    file.write_text("from-a-file\n\nanother\n")
    client = create_app(replace(settings, api_keys_file=file), fake).test_client()
    headers = {"Authorization": "Bearer another"}
    assert client.post("/api/embed", json={"input": "a"}, headers=headers).status_code == 200
    assert client.post("/api/embed", json={"input": "a"}).status_code == 401
    file.write_text("\n")
    with pytest.raises(ConfigError, match="contains no key"):
        _ = replace(settings, api_keys_file=file).keys
    with pytest.raises(ConfigError, match="EMBED_API_KEYS_FILE cannot be read"):
        _ = replace(settings, api_keys_file=tmp_path / "absent").keys


def test_a_key_is_never_shown(settings):
    assert SECRET not in repr(replace(settings, api_keys=(SECRET,)))


def test_other_hosts_pages_may_call_only_when_named(settings, fake, client):
    asked = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    assert "Access-Control-Allow-Origin" not in client.options("/api/embed", headers=asked).headers
    named = replace(settings, cors_origins=("https://page.example",), api_keys=(SECRET,))
    other = create_app(named, fake).test_client()
    answer = other.options("/api/embed", headers=asked | {"Access-Control-Request-Headers": "authorization"})
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "https://page.example"
    assert "authorization" in answer.headers["Access-Control-Allow-Headers"].lower()
    stranger = other.options("/api/embed", headers=asked | {"Origin": "https://other.example"})
    assert "Access-Control-Allow-Origin" not in stranger.headers


def test_every_answer_has_its_headers(client):
    for answer in (client.get("/healthz"), client.get("/nothing"), client.post("/api/embed", json={})):
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize(("sent", "kept"), [("abc-1.2", True), ("a b", False), ("x" * 200, False)])
def test_a_request_id_is_taken_over_if_it_is_harmless(client, sent, kept):
    answer = client.get("/nothing", headers={"X-Request-ID": sent})
    assert (answer.headers["X-Request-ID"] == sent) is kept


def test_a_request_is_one_line_without_its_text_or_key(locked, caplog):
    headers = {"Authorization": f"Bearer {SECRET}", "X-Request-ID": "id-7"}
    with caplog.at_level(logging.INFO, "app"):
        locked.post("/api/embed", json={"input": ["my secret words", "b"]}, headers=headers)
        locked.get("/healthz")
        locked.get("/private/path")
    first, second = (record.getMessage() for record in caplog.records)
    assert re.fullmatch(r"POST /api/embed 200, 2 texts, 8 tokens, \d+\.\d ms, id-7", first)
    assert second.startswith("GET none 401, 0 texts")
    assert "secret" not in caplog.text
    assert SECRET not in caplog.text


def test_what_a_client_makes_up_is_no_label(client):
    client.open("/made/up", method="MADEUP")
    assert "made" not in client.get("/metrics").text.lower()


@pytest.fixture
def logging_as_it_was():
    loggers = [logging.getLogger(name) for name in ("", *log_config("json")["loggers"])]
    saved = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, logger.propagate) in zip(loggers, saved, strict=True):
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.mark.usefixtures("logging_as_it_was")
def test_lines_can_be_json(client, capfd):
    logging.config.dictConfig(log_config("json"))
    client.post("/api/embed", json={"input": "a"}, headers={"X-Request-ID": "id-8"})
    line = json.loads(capfd.readouterr().err.strip().splitlines()[-1])
    assert line["level"] == "INFO"
    assert {
        "method": "POST",
        "route": "/api/embed",
        "status": 200,
        "texts": 1,
        "request_id": "id-8",
    }.items() <= (line.items())


def test_metrics_count_what_was_done(client, app, fake):
    from app.api.metrics import announce, watch_batch

    def value(line):
        found = re.search(rf"^{re.escape(line)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    lines = {
        'embed_requests_total{method="POST",route="/api/embed",status="200"}': 1,
        'embed_requests_total{method="POST",route="/api/embed",status="422"}': 1,
        "embed_texts_total": 2,
        "embed_tokens_total": 11,
        "embed_truncated_texts_total": 1,
        'embed_batch_texts_sum{priority="bulk"}': 3,
        'embed_batch_tokens_sum{priority="interactive"}': 9,
        'embed_batch_tokens_sum{priority="bulk"}': 40,
        "embed_padded_tokens_total": 69,
        'embed_queue_seconds_bucket{le="0.1",priority="interactive"}': 1,
        'embed_queue_seconds_bucket{le="2.5",priority="bulk"}': 0,
        'embed_queue_seconds_sum{priority="bulk"}': 7,
        'embed_stage_seconds_count{stage="forward"}': 1,
        'embed_request_seconds_count{route="/api/embed"}': 2,
    }
    before = {line: value(line) for line in lines}
    client.post("/api/embed", json={"input": ["a", "word " * 9]})
    client.post("/api/embed", json={})
    watch_batch(BatchStats("interactive", texts=1, tokens=9, padded=9, waits=[0.1]))
    watch_batch(BatchStats("bulk", texts=3, tokens=40, padded=60, waits=[3, 4]))
    fake.turns(waiting={"interactive": 5, "bulk": 7})
    client.get("/healthz")
    announce(app)
    assert {line: value(line) - before[line] for line in lines} == lines
    assert value('embed_queue_tokens{priority="interactive"}') == 5
    assert value('embed_queue_tokens{priority="bulk"}') == 7
    assert value("embed_resident_bytes") > 1e6
    assert (
        'embed_model{engine="native",model="fake",pooling="mean",precision="fp32"'
        in client.get("/metrics").text
    )


def test_health_notices_a_forward_that_hangs_and_a_full_queue(client, fake):
    fake.turns(busy_seconds=STUCK_SECONDS - 1)
    assert client.get("/healthz").status_code == 200
    fake.turns(busy_seconds=STUCK_SECONDS + 1)
    assert client.get("/healthz").status_code == 503
    fake.turns(busy_seconds=0, broken=True)
    assert client.get("/healthz").status_code == 503
    fake.turns(broken=False, full=frozenset({"bulk"}))
    assert client.get("/readyz").status_code == 503
    fake.turns(full=frozenset({"interactive"}))
    assert client.get("/readyz").status_code == 200


def test_a_text_of_too_many_characters_is_refused(settings, fake):
    client = create_app(replace(settings, max_characters=100), fake).test_client()
    answer = client.post("/api/embed", json={"input": ["a", "b" * 101]})
    assert answer.status_code == 422
    assert answer.json["error"] == "input: text 1 has 101 characters, the limit is 100"
    answer = client.post("/rerank", json={"query": "b" * 101, "texts": []})
    assert "query: has 101 characters" in answer.json["error"]


@pytest.mark.parametrize("value", ["everything", "docs,health"])
def test_a_wrong_word_for_what_is_open_is_refused(value):
    with pytest.raises(ConfigError, match="EMBED_OPEN"):
        Settings.from_env({"EMBED_OPEN": value})
    assert Settings.from_env({"EMBED_OPEN": "none"}).open_paths == ()
    assert Settings.from_env({"EMBED_OPEN": "docs, metrics"}).open_paths == ("docs", "metrics")
