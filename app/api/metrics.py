"""GET /metrics: counters of all workers in Prometheus' format."""

import os
from collections.abc import Mapping
from pathlib import Path

from flask import Blueprint, Flask, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from app.api.documented import documented
from app.config import Settings
from app.engine.embeddings import PRIORITIES, BatchStats, ModelInfo, Priority

bp = Blueprint("metrics", __name__)

OWN = CollectorRegistry()
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)

REQUESTS = Counter("embed_requests", "Requests answered.", ["method", "route", "status"], registry=OWN)
REQUEST_SECONDS = Histogram(
    "embed_request_seconds",
    "From the head read to its answer.",
    ["route"],
    buckets=SECONDS,
    registry=OWN,
)
STAGE_SECONDS = Histogram(
    "embed_stage_seconds", "Where a request's time goes.", ["stage"], buckets=SECONDS, registry=OWN
)
TEXTS_DONE = Counter("embed_texts", "Texts encoded.", registry=OWN)
CACHED = Counter(
    "embed_cached_texts", "Texts whose outputs came from the cache (EMBED_CACHE_TEXTS).", registry=OWN
)
PAIRS_DONE = Counter("embed_pairs", "Pairs of texts read by the cross-encoder.", registry=OWN)
TOKENS_DONE = Counter("embed_tokens", "Tokens encoded.", registry=OWN)
TRUNCATED = Counter(
    "embed_truncated_texts", "Texts and pairs that were cut to the model's length.", registry=OWN
)
QUEUE_TOKENS = Gauge(
    "embed_queue_tokens", "Tokens that wait.", ["priority"], registry=OWN, multiprocess_mode="livesum"
)
QUEUE_SECONDS = Histogram(
    "embed_queue_seconds",
    "From the queue to a request's first batch, of questions and of corpora.",
    ["priority"],
    buckets=SECONDS,
    registry=OWN,
)
BATCH_TEXTS = Histogram("embed_batch_texts", "Texts of a batch.", ["priority"], buckets=TEXTS, registry=OWN)
BATCH_TOKENS = Histogram(
    "embed_batch_tokens", "Tokens of a batch.", ["priority"], buckets=TOKENS, registry=OWN
)
PADDED_TOKENS = Counter(
    "embed_padded_tokens", "Tokens as attention sees them, padding included.", registry=OWN
)
RESIDENT = Gauge("embed_resident_bytes", "Memory of a worker.", registry=OWN, multiprocess_mode="liveall")
MODEL = Gauge(
    "embed_model",
    "1, and what is served in the labels.",
    ["model", "engine", "precision", "pooling", "version"],
    registry=OWN,
    multiprocess_mode="livemax",
)
for _metric in (QUEUE_TOKENS, QUEUE_SECONDS, BATCH_TEXTS, BATCH_TOKENS):
    for _priority in PRIORITIES:
        _metric.labels(_priority)  # there from the start, at 0
PAGE = os.sysconf("SC_PAGE_SIZE")


@bp.get("/metrics")
@documented(
    "Counters and histograms for Prometheus",
    responses={200: ({"type": "string"}, "in the text format of Prometheus")},
    media=("text/plain",),
    tag="Health",
)
def metrics() -> Response:
    registry = OWN
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # prometheus-client's own switch, set by gunicorn.conf.py
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    try:
        text = generate_latest(registry)
    except FileNotFoundError:  # a worker ended before it counted anything, see gunicorn.conf.py
        text = generate_latest(registry)
    return Response(text, mimetype="text/plain")


def count_request(
    method: str, route: str, status: int, seconds: float, waiting: Mapping[Priority, int]
) -> None:
    """Count an answered request, and note how many tokens wait."""
    for priority, tokens in waiting.items():
        QUEUE_TOKENS.labels(priority).set(tokens)
    REQUESTS.labels(method, route, str(status)).inc()
    REQUEST_SECONDS.labels(route).observe(seconds)


def count_work(texts: int, pairs: int, tokens: int, cut: int, cached: int, stages: dict[str, int]) -> None:
    """Texts, pairs and tokens of a request, what was cut or cached, and nanoseconds of each of its stages."""
    TEXTS_DONE.inc(texts)
    CACHED.inc(cached)
    PAIRS_DONE.inc(pairs)
    TOKENS_DONE.inc(tokens)
    TRUNCATED.inc(cut)
    for stage, ns in stages.items():
        STAGE_SECONDS.labels(stage).observe(ns / 1e9)


def watch_batch(batch: BatchStats) -> None:
    """Called by the batcher before each forward pass."""
    BATCH_TEXTS.labels(batch.priority).observe(batch.texts)
    BATCH_TOKENS.labels(batch.priority).observe(batch.tokens)
    PADDED_TOKENS.inc(batch.padded)
    for seconds in batch.waits:
        QUEUE_SECONDS.labels(batch.priority).observe(seconds)
    RESIDENT.set(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE)


def announce(app: Flask) -> None:
    """Note what `app` serves, once it is loaded."""
    settings: Settings = app.config["EMBED"]
    served = {settings.served_name: app.extensions["encoder"]}
    if app.extensions["reranker"]:
        served[settings.reranker_served_name] = app.extensions["reranker"]
    for name, model in served.items():
        info: ModelInfo = model.info
        MODEL.labels(name, info.engine, info.precision, info.pooling, app.config["VERSION"]).set(1)
