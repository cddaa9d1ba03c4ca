"""W3C Trace Context, and OpenTelemetry's own exporter with a stand-in for a collector."""

import logging
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app import create_app
from app.api import tracing
from app.config import Settings

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize("sent", [PARENT, f"01-{TRACE}-{SPAN}-00-more"])
def test_the_callers_trace_is_in_the_log(client, caplog, sent):
    with caplog.at_level(logging.INFO, "app.api.request_log"):
        client.post("/api/embed", json={"input": "a"}, headers={"traceparent": sent})
    assert caplog.records[-1].trace_id == TRACE
    assert caplog.messages[-1].endswith(f"trace_id {TRACE}")


@pytest.mark.parametrize(
    "sent",
    [
        "",
        TRACE,
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"{PARENT}-more",
    ],
)
def test_what_is_no_trace_is_none(client, caplog, sent):
    with caplog.at_level(logging.INFO, "app.api.request_log"):
        client.post("/api/embed", json={"input": "a"}, headers={"traceparent": sent})
    assert not hasattr(caplog.records[-1], "trace_id")


def test_a_refusal_before_flask_has_it_too(client, fake, caplog):
    fake.turns(full=frozenset({"interactive", "bulk"}))
    with caplog.at_level(logging.INFO, "app.api.request_log"):
        answer = client.post("/api/embed", json={"input": "a"}, headers={"traceparent": PARENT})
    assert answer.status_code == 503
    assert caplog.records[-1].trace_id == TRACE


@pytest.fixture
def collector():
    """A server that keeps what is posted to it."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", got
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["", "search-vectors"])
def test_spans_say_where_the_time_went(fake, collector, monkeypatch, caplog, name):
    url, got = collector
    monkeypatch.setenv("OTEL_SERVICE_NAME", name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    app = create_app(Settings(model_name="fake", otlp_endpoint=url), fake)
    with caplog.at_level(logging.INFO, "app.api.request_log"):
        body = {"input": "a", "encoding_format": "base64"}
        app.test_client().post("/api/embed", json=body, headers={"traceparent": PARENT}).close()
        app.test_client().get("/api/version").close()
    tracing.close(app)
    ((path, sent),) = got
    assert path == "/v1/traces"
    (resource,) = sent.resource_spans
    names = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert names["service.name"] == (name or "embeddings")
    spans = {span.name: span for scope in resource.scope_spans for span in scope.spans}
    root = spans.pop("POST /api/embed")
    other = spans.pop("GET /api/version")
    assert set(spans) == {"tokenize", "queue", "forward", "write"}
    assert root.trace_id.hex() == TRACE == caplog.records[-2].trace_id
    assert root.parent_span_id.hex() == SPAN
    assert {one.key: one.value for one in root.attributes}["http.response.status_code"].int_value == 200
    assert other.trace_id.hex() == caplog.records[-1].trace_id != TRACE
    end = 0
    for name in ("tokenize", "queue", "forward", "write"):
        span = spans[name]
        assert (span.trace_id, span.parent_span_id) == (root.trace_id, root.span_id)
        assert end <= span.start_time_unix_nano <= span.end_time_unix_nano
        end = span.end_time_unix_nano


def test_a_collector_that_is_away_holds_nobody_up(fake, monkeypatch):
    with socket.socket() as closed:  # bound, but not listening
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setattr(tracing, "CLOSE_SECONDS", 0.5)
        app = create_app(Settings(model_name="fake", otlp_endpoint=url), fake)
        assert app.test_client().post("/api/embed", json={"input": "a"}).status_code == 200
        start = time.monotonic()
        tracing.close(app)
        assert time.monotonic() - start < 5


def test_without_the_libraries_it_serves_and_says_so(fake, monkeypatch, caplog):
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    app = create_app(Settings(model_name="fake", otlp_endpoint="http://127.0.0.1:1"), fake)
    assert "install requirements-tracing.txt" in caplog.text
    assert app.test_client().post("/api/embed", json={"input": "a"}).status_code == 200
