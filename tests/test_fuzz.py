"""Whatever a client sends, the status of the answer is below 500: `make test-faults`."""

import random
import re
import subprocess
import sys
from collections import Counter

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import create_app
from app.config import Settings
from tests.conftest import FakeEncoder, FakeReranker
from tests.server import ROOT

pytestmark = pytest.mark.faults

encoder = FakeEncoder()
fuzzed = create_app(Settings(max_body_bytes=100_000), encoder, FakeReranker(encoder)).test_client()
PATHS = [
    *("/api/embed", "/api/embeddings", "/api/show", "/api/pull", "/api/score", "/v1/embeddings"),
    *("/v1/rerank", "/rerank", "/embed", "/embed_sparse", "/tokenize", "/", "/predict"),
]
FIELDS = [
    *("input", "inputs", "model", "prompt", "encoding_format", "dimensions", "pooling", "truncate"),
    *("return_dense", "return_sparse", "return_colbert_vecs", "lexical_weights", "pairs", "query"),
    *("passages", "texts", "documents", "weights", "top_n", "options", "keep_alive", "normalize"),
    *("rerank_top", "raw_scores", "colbert_pool", "chunk", "late_chunking", "tokens", "overlap", "late"),
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["float", "base64", "int8", "binary", "mean", "cls", "tokens", "fake", "bge-m3"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6)


def dumps(body) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # for numbers that are too large for it
        import json

        return json.dumps(body).encode("utf-8", "surrogatepass")


@given(st.sampled_from(PATHS), BODIES)
@settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_json_makes_it_fail(path, body):
    answer = fuzzed.post(path, data=dumps(body), content_type="application/json")
    assert answer.status_code < 500, answer.text
    answer.close()


@given(
    st.sampled_from(PATHS),
    st.binary(max_size=200),
    st.sampled_from(["application/json", "text/plain", "", "application/json; charset=latin-1"]),
)
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_bytes_make_it_fail(path, body, content_type):
    answer = fuzzed.post(path, data=body, content_type=content_type)
    assert 400 <= answer.status_code < 500, answer.text
    answer.close()


def test_two_hundred_thousand_mutated_bodies():
    """Bytes of valid requests are cut, doubled, swapped and overwritten."""
    chance = random.Random(0)
    good = [
        b'{"input": ["one", "two"], "encoding_format": "base64", "dimensions": 4, "pooling": "cls"}',
        b'{"input": "a", "return_sparse": true, "return_colbert_vecs": true, "lexical_weights": "tokens"}',
        b'{"pairs": [["a", "b"], ["c", "d"]], "weights": [0.4, 0.2, 0.4]}',
        b'{"query": "a", "documents": ["b", {"text": "c"}], "top_n": 1, "return_documents": true}',
        b'{"inputs": ["a b", "c"], "truncate": null, "normalize": false}',
        b'{"query": "a", "texts": ["b"], "raw_scores": true, "return_text": true}',
    ]
    seen: Counter = Counter()
    for _ in range(200_000):
        body = bytearray(chance.choice(good))
        for _ in range(chance.randint(0, 4)):
            place, other = chance.randrange(len(body) or 1), chance.randrange(len(body) or 1)
            kind = chance.randrange(4)
            if kind == 0:
                body[place : place + 1] = bytes([chance.randrange(256)])
            elif kind == 1:
                del body[min(place, other) : max(place, other)]
            elif kind == 2:
                body[place:place] = body[min(place, other) : max(place, other)]
            else:
                body[place:place] = chance.choice(
                    [b'"', b"{", b"[", b"null", b"1e999", b"\\ud800", b"\xff", b"-"]
                )
        answer = fuzzed.post(chance.choice(PATHS), data=bytes(body), content_type="application/json")
        seen[answer.status_code] += 1
        assert answer.status_code < 500, (bytes(body), answer.text)
        answer.close()
    print(f"200 000 mutated bodies: {dict(seen)}")


def test_a_hundred_thousand_inputs_guided_by_coverage():
    """atheris mutates the inputs that reach new code. It ends its process, so it runs in one of its own."""
    pytest.importorskip("atheris")
    command = [sys.executable, "-m", "tests.fuzz", "-runs=100000", "-seed=1", "-print_final_stats=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = re.search(r"stat::number_of_executed_units:\s+(\d+)", done.stderr)
    reached = re.findall(r"cov: (\d+)", done.stderr)
    print(f"guided by coverage: {runs[1]} inputs, {reached[0]} then {reached[-1]} places reached")
    assert int(runs[1]) >= 100_000
    assert int(reached[-1]) > int(reached[0])
