"""A request belongs to its caller's trace (W3C Trace Context), in the log and in OpenTelemetry's spans."""

import logging
import re
import threading
import time
from collections.abc import Mapping
from typing import Any

from flask import Flask, current_app, g
from werkzeug.wrappers import Response

log = logging.getLogger(__name__)

# Version, trace id, span id, flags; later versions than 00 may say more after them. Trace Context, 3.2.2.
TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?", re.ASCII
)
CLOSE_SECONDS = 3.0
STAGES = {"tokenize": "tokenize", "queue": "queue", "forward": "forward", "serialize": "write"}


def init_app(app: Flask) -> None:
    """Send spans by OpenTelemetry, where a setting names a collector; its own variables say how."""
    app.extensions["tracer"] = None
    if not app.config["EMBED"].otlp_endpoint:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but no spans are sent: install requirements-tracing.txt"
        )
        return
    named = Resource.create({"service.version": app.config["VERSION"]})
    if str(named.attributes["service.name"]).startswith("unknown_service"):  # OpenTelemetry's default
        named = named.merge(Resource({"service.name": "embeddings"}))
    provider = TracerProvider(resource=named, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    app.extensions["tracer"] = provider


def close(app: Flask) -> None:
    """Send what is left within a few seconds; OpenTelemetry would try an absent collector for ten."""
    if app.extensions["tracer"]:
        last = threading.Thread(target=app.extensions["tracer"].shutdown, daemon=True)
        last.start()
        last.join(CLOSE_SECONDS)


def trace_id(environ: Mapping[str, Any]) -> str:
    """The caller's, 32 hexadecimal digits; nothing where it sent none, or none that is one."""
    found = TRACEPARENT.fullmatch(environ.get("HTTP_TRACEPARENT", ""))
    return found[2] if found and not (found[1] == "00" and found[3]) else ""


def begin(environ: Mapping[str, Any], name: str) -> str:
    """The id of the trace that this request belongs to, of a new one where spans are sent."""
    g.span = None
    if not current_app.extensions["tracer"]:
        return trace_id(environ)
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    sent = {
        "traceparent": environ.get("HTTP_TRACEPARENT", ""),
        "tracestate": environ.get("HTTP_TRACESTATE", ""),
    }
    context = TraceContextTextMapPropagator().extract(sent)
    tracer = current_app.extensions["tracer"].get_tracer(__name__)
    g.span = tracer.start_span(name, context, SpanKind.SERVER)
    return f"{g.span.get_span_context().trace_id:032x}"


def end(response: Response, attributes: Mapping[str, Any]) -> None:
    """The request's span ends when its answer is sent."""
    if g.span:
        g.span.set_attributes(attributes)
        response.call_on_close(g.span.end)


def stages(spent: Mapping[str, int], span: Any) -> None:
    """A span for each stage of a request's work, of which the last ends now; nanoseconds.

    A stage that came in several pieces, as in scores, has one span as long as them all.
    """
    if not span:
        return
    from opentelemetry.trace import set_span_in_context

    tracer = current_app.extensions["tracer"].get_tracer(__name__)
    begins = time.time_ns() - sum(spent.values())
    for stage, ns in spent.items():
        tracer.start_span(STAGES[stage], set_span_in_context(span), start_time=begins).end(begins + ns)
        begins += ns
