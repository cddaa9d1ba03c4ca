"""Coverage-guided fuzzing of the request path, with a fake encoder: `python -m tests.fuzz -runs=100000`.

The first byte of an input chooses the path, the second the content type, the rest is the body. An answer with
a status of 500 or more raises an exception.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["app", "marshmallow"]):
    import app.api  # noqa: F401  create_app imports it only when it is called
    from app import create_app
    from app.config import Settings

from tests.conftest import FakeEncoder, FakeReranker

PATHS = [
    *("/api/embed", "/api/embeddings", "/api/show", "/api/pull", "/api/score", "/v1/embeddings"),
    *("/v1/rerank", "/rerank", "/embed", "/embed_sparse", "/tokenize", "/", "/predict"),
]
CONTENT_TYPES = [
    *("application/json", "application/json", "application/json", "application/json; charset=latin-1"),
    *("text/plain", ""),
]
GOOD = [
    b'{"input": ["one", "two"], "encoding_format": "base64", "dimensions": 4, "pooling": "cls"}',
    b'{"input": "a", "return_sparse": true, "return_colbert_vecs": true, "lexical_weights": "tokens"}',
    b'{"input": "a b c d", "chunk": {"tokens": 32, "overlap": 4, "late": true}, "late_chunking": true}',
    b'{"input": [1, 2, 3], "model": "bge-m3", "options": {"use_mmap": null}, "keep_alive": -1}',
    b'{"pairs": [["a", "b"], ["c", "d"]], "weights": [0.4, 0.2, 0.4]}',
    b'{"query": "a", "documents": ["b", {"text": "c"}], "top_n": 1, "return_documents": true}',
    b'{"inputs": ["a b", "c"], "truncate": null, "normalize": false}',
    b'{"query": "a", "texts": ["b"], "raw_scores": true, "return_text": true, "rerank_top": 1}',
    b'{"inputs": [["a", "b"], ["c", "d"]], "raw_scores": true}',
]
encoder = FakeEncoder()
client = create_app(Settings(max_body_bytes=100_000), encoder, FakeReranker(encoder)).test_client()


def answer(data: bytes) -> None:
    if len(data) < 2:
        return
    path, kind = PATHS[data[0] % len(PATHS)], CONTENT_TYPES[data[1] % len(CONTENT_TYPES)]
    found = client.post(path, data=data[2:], content_type=kind)
    if found.status_code >= 500:
        raise RuntimeError(f"{found.status_code} for {path}, {kind}, {data[2:]!r}: {found.text}")
    found.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as corpus:
        for path in range(len(PATHS)):
            for number, body in enumerate(GOOD):
                (Path(corpus) / f"{path}-{number}").write_bytes(bytes([path, 0]) + body)
        atheris.Setup([*sys.argv, corpus, "-max_len=4096", "-artifact_prefix=/tmp/"], answer)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
