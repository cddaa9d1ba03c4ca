"""POST /api/embed on the wire: requests and answers."""

import base64
from dataclasses import replace

import numpy as np
import orjson
import pytest

from app import create_app
from app.config import Settings
from app.engine import token_pooling
from app.engine.embeddings import Chunking
from app.engine.encodings import matrix
from app.engine.token_pooling import pool

TEXTS = ["什么是机器学习？", "", "Guten Morgen"]


def embed(client, **body):
    response = client.post("/api/embed", json=body)
    assert response.status_code == 200, response.text
    return response.json


def test_one_text_gives_one_vector(client, fake):
    answer = embed(client, input="hello world")
    assert list(answer) == [
        "model",
        "embeddings",
        "total_duration",
        "load_duration",
        "prompt_eval_count",
    ]
    assert answer["model"] == "fake"
    assert answer["prompt_eval_count"] == 4
    assert answer["load_duration"] == 7
    assert answer["total_duration"] > 0
    np.testing.assert_array_equal(np.float32(answer["embeddings"]), [fake.vector("hello world")])


def test_vectors_come_in_the_order_of_the_texts(client, fake):
    answer = embed(client, input=TEXTS)
    np.testing.assert_array_equal(np.float32(answer["embeddings"]), [fake.vector(t) for t in TEXTS])
    assert answer["prompt_eval_count"] == 3 + 2 + 4


def test_no_texts_give_no_vectors(client):
    answer = embed(client, input=[])
    assert answer["embeddings"] == []
    assert answer["prompt_eval_count"] == 0


@pytest.mark.parametrize("encoding", ["float", "base64", "int8", "binary", "ubinary"])
def test_no_texts_in_any_encoding(client, encoding):
    assert embed(client, input=[], encoding_format=encoding)["embeddings"] == []


def test_base64_is_little_endian_float32(client, fake):
    answer = embed(client, input=TEXTS, encoding_format="base64")
    rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in answer["embeddings"]]
    np.testing.assert_array_equal(rows, [fake.vector(t) for t in TEXTS])


def test_int8_is_scaled_to_each_vectors_largest_magnitude(client, fake):
    rows = np.array(embed(client, input=TEXTS, encoding_format="int8")["embeddings"])
    for row, text in zip(rows, TEXTS, strict=True):
        vector = fake.vector(text)
        assert np.abs(row).max() == 127
        np.testing.assert_array_equal(row, np.round(vector / np.abs(vector).max() * 127))


def test_bits_are_those_of_sentence_transformers(client, fake):
    bits = np.packbits([fake.vector(t) > 0 for t in TEXTS], axis=1)
    unsigned = embed(client, input=TEXTS, encoding_format="ubinary")["embeddings"]
    signed = embed(client, input=TEXTS, encoding_format="binary")["embeddings"]
    assert unsigned == bits.tolist()
    assert signed == (bits.astype(int) - 128).tolist()


def test_dimensions_cut_and_renormalise(client, fake):
    rows = np.array(embed(client, input=TEXTS, dimensions=5)["embeddings"])
    expected = np.array([fake.vector(t)[:5] for t in TEXTS])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(rows, expected, atol=1e-6)


@pytest.mark.parametrize("dimensions", [0, None, 16])
def test_dimensions_that_cut_nothing_change_nothing(client, fake, dimensions):
    rows = embed(client, input="a", dimensions=dimensions)["embeddings"]
    np.testing.assert_array_equal(np.float32(rows), [fake.vector("a")])


def test_dimensions_go_with_every_encoding(client):
    for encoding, size in (("float", 12), ("int8", 12), ("binary", 2), ("ubinary", 2)):
        answer = embed(client, input="a", dimensions=12, encoding_format=encoding)
        assert len(answer["embeddings"][0]) == size, encoding


def test_truncation_is_reported_only_when_it_happened(client):
    assert "truncated" not in embed(client, input=["short", "text"])
    long = " ".join(["word"] * 20)
    answer = embed(client, input=["short", long, "text", long])
    assert answer["truncated"] == [1, 3]
    assert answer["prompt_eval_count"] == 3 + 8 + 3 + 8


def test_pooling_and_truncate_reach_the_encoder(client, fake):
    embed(client, input="a")
    embed(client, input="a", pooling="cls", truncate=False)
    embed(client, input="a", pooling=None, truncate=None)
    assert [call["pooling"] for call in fake.calls] == [None, "cls", None]
    assert [call["truncate"] for call in fake.calls] == ["right", None, "right"]


def test_fields_of_other_servers_are_ignored(client):
    embed(
        client,
        input="a",
        options={"num_ctx": None, "use_mmap": True, "nested": [{"deep": [1, None]}]},
        keep_alive=-1,
        drop_params=True,
        user="somebody",
    )
    embed(client, input="a", options=None, keep_alive="5m")


@pytest.mark.parametrize("encoding", ["float", "base64", "int8", "binary", "ubinary"])
def test_pooled_multi_vectors_go_with_every_encoding(client, fake, encoding):
    text = "one two three four five"
    asked = {"return_colbert_vecs": True, "encoding_format": encoding}
    (found,) = embed(client, input=text, colbert_pool=2, **asked)["colbert_vecs"]
    assert fake.calls[-1]["colbert_pool"] == 2
    rows = np.array([fake.vector(word) for word in [*text.split(), "</s>"]])
    (pooled,) = pool([rows], 2)
    assert len(pooled) == 3
    assert orjson.loads(orjson.dumps(matrix(pooled, encoding), option=orjson.OPT_SERIALIZE_NUMPY)) == found
    assert embed(client, input=text, colbert_pool=None, **asked)["colbert_vecs"] != [found]


@pytest.mark.parametrize("factor", [0, 1, 9, -2, 2.5, "two", True, [2]])
def test_a_pool_factor_that_there_is_not_is_refused(client, factor):
    body = {"input": "a", "return_colbert_vecs": True, "colbert_pool": factor}
    answer = client.post("/api/embed", json=body)
    assert answer.status_code == 422
    assert answer.json["error"].startswith("colbert_pool: must be a whole number")


def test_without_multi_vectors_there_is_nothing_to_pool(client):
    assert "colbert_vecs" not in embed(client, input="a", colbert_pool=2)


def test_pooled_answers_may_be_of_more_texts(fake, monkeypatch):
    monkeypatch.setattr(token_pooling, "GROUP_TOKENS", 16)
    client = create_app(Settings(max_output_numbers=2000), fake).test_client()
    body = {"input": ["one two three four five six"] * 20, "return_colbert_vecs": True, "return_dense": False}
    assert client.post("/api/embed", json=body).status_code == 422
    assert client.post("/api/embed", json=body | {"colbert_pool": 4}).status_code == 200


@pytest.mark.parametrize("name", ["fake", "fake:latest", "FAKE", "openai/fake", "Ollama/Fake:latest"])
def test_names_of_the_served_model_are_accepted_and_echoed(client, name):
    assert embed(client, input="a", model=name)["model"] == name


@pytest.mark.parametrize(
    "name",
    ["bge-m3", "BGE-M3", "bge-m3:latest", "bge-m3:567m", "BAAI/bge-m3", "baai/bge-m3", "openai/bge-m3"],
)
def test_bge_m3s_names_mean_weights_of_its_shape_only(client, fake, name):
    answer = client.post("/api/embed", json={"input": "a", "model": name})
    assert answer.status_code == 404
    assert answer.json["error"] == f"model {name!r} not found: 'fake' is served here"
    fake.shape = ("xlm-roberta", 24, 1024, 250002)
    assert embed(client, input="a", model=name)["model"] == name


@pytest.mark.parametrize(
    "name", ["other/fake", "other/bge-m3", "fake:567m", "bge-m3:v2", "openai/openai/fake", ""]
)
def test_other_names_are_others(client, fake, name):
    fake.shape = ("xlm-roberta", 24, 1024, 250002)
    assert client.post("/api/embed", json={"input": "a", "model": name}).status_code == 404


def test_aliases_are_a_setting(fake):
    client = create_app(Settings(model_aliases=("text-embedding-3-small",)), fake).test_client()
    assert embed(client, input="a", model="text-embedding-3-small")["model"]
    assert client.post("/api/embed", json={"input": "a", "model": "fake"}).status_code == 404


def test_vectors_go_to_the_wire_without_python_floats(client, fake, monkeypatch):
    """orjson gets the array itself, so the digits are those of float32, not of a widened double."""
    seen = []
    dumps = orjson.dumps
    monkeypatch.setattr("app.api.answer.orjson.dumps", lambda o, **k: seen.append(o) or dumps(o, **k))
    response = client.post("/api/embed", json={"input": TEXTS, "dimensions": 5})
    assert sum(isinstance(part, np.ndarray) and part.shape == (len(TEXTS), 5) for part in seen) == 1
    longest = max(len(number) for number in response.text.split("[[")[1].split("]")[0].split(","))
    assert longest <= 14


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        {"a": [], "b": {}, "c": np.empty((0, 4), np.float32)},
        {"rows": np.arange(300_000, dtype=np.float32).reshape(3000, 100), "n": 1},
        {"wide": np.arange(80_000, dtype=np.float32).reshape(2, 40_000)},
        {"data": [{"index": index, "vector": np.full(50, index, np.float32)} for index in range(1000)]},
        [np.full((5, 9000), 0.1, np.float32), np.full((1, 3), 0.2, np.float32), [1, [2, None]], "text"],
        [[{"id": index, "text": 'é"' * index} for index in range(40)] for _ in range(50)],
    ],
)
def test_an_answer_in_pieces_is_what_it_would_be_in_one(app, content):
    """No piece takes long, because no other thread runs Python while orjson writes one."""
    with app.app_context():
        response = app.json.response(content)
    pieces = list(response.response)
    whole = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    assert b"".join(pieces) == whole
    assert response.content_length == len(whole)
    assert max(map(len, pieces)) < 1 << 20
    assert len(pieces) >= len(whole) >> 20


@pytest.mark.parametrize(
    ("header", "field", "priority"),
    [
        (None, None, None),
        (None, "bulk", "bulk"),
        (None, "interactive", "interactive"),
        ("u=0", None, "interactive"),
        ("i, u=1", None, "interactive"),
        ("u=6, i", None, "bulk"),
        ("u=7", "interactive", "interactive"),  # the field is the client's own choice
        ("u=1, i, u=3", None, "interactive"),
        ("u=3", None, None),
        ("u=4", None, None),  # a browser sends this with everything that a page fetches
        ("u=9", None, None),
        ("nonsense", None, None),
        ("xu=7", None, None),
        ("u=77", None, None),
    ],
)
def test_who_knows_better_says_what_goes_first(client, fake, header, field, priority):
    headers = {"Priority": header} if header else {}
    for path, body in (
        ("/api/embed", {"input": "a"}),
        ("/api/score", {"pairs": [["a", "b"]]}),
    ):
        client.post(path, json=body | ({"priority": field} if field else {}), headers=headers)
        assert fake.calls[-1]["priority"] == priority, path
    if not field:
        for path, body in (
            ("/v1/embeddings", {"input": "a"}),
            ("/embed", {"inputs": "a"}),
            ("/embed_sparse", {"inputs": "a"}),
            ("/api/embeddings", {"prompt": "a"}),
            ("/rerank", {"query": "a", "texts": ["b"]}),
            ("/v1/rerank", {"query": "a", "documents": ["b"]}),
        ):
            assert client.post(path, json=body, headers=headers).status_code == 200
            assert fake.calls[-1]["priority"] == priority, path


def test_a_priority_that_there_is_not_is_refused(client):
    answer = client.post("/api/embed", json={"input": "a", "priority": "high"})
    assert answer.status_code == 422
    assert answer.json["error"] == "priority: must be one of interactive, bulk"


def test_a_content_type_with_a_charset_is_json_too(client):
    body = b'{"input": "a"}'
    for mimetype in ("application/json; charset=utf-8", "application/vnd.api+json"):
        assert client.post("/api/embed", data=body, content_type=mimetype).status_code == 200


def test_the_answer_says_where_its_time_went(client):
    header = client.post("/api/embed", json={"input": "a"}).headers["Server-Timing"]
    parts = dict(part.split(";dur=") for part in header.split(", "))
    assert list(parts) == ["tokenize", "queue", "forward", "serialize"]
    assert all(float(part) >= 0 for part in parts.values())


def test_a_text_is_cut_into_passages(client, fake):
    text = " ".join(f"word{number}" for number in range(70))
    answer = embed(
        client,
        input=[text, "short"],
        chunk={"tokens": 32, "overlap": 0},
        return_sparse=True,
        return_colbert_vecs=True,
    )
    assert fake.calls[-1]["chunk"] == Chunking(32, 0, late=False)
    chunks = answer["chunks"]
    assert [chunk["input"] for chunk in chunks] == [0, 0, 0, 1]
    assert [chunk["tokens"] for chunk in chunks] == [32, 32, 6, 1]
    parts = [(text, "short")[chunk["input"]][chunk["start"] : chunk["end"]] for chunk in chunks]
    np.testing.assert_array_equal(np.float32(answer["embeddings"]), [fake.vector(part) for part in parts])
    assert len(answer["sparse"]) == len(answer["colbert_vecs"]) == 4
    assert "late" not in answer
    assert "truncated" not in answer


@pytest.mark.parametrize(
    ("chunk", "meant"),
    [
        (True, Chunking(256, 32)),
        ({}, Chunking(256, 32)),
        ({"tokens": 64}, Chunking(64, 8)),
        ({"tokens": 64, "overlap": 32}, Chunking(64, 32)),
        ({"tokens": None, "late": True}, Chunking(256, 32, late=True)),
        (False, None),
        (None, None),
    ],
)
def test_what_chunk_means(client, fake, chunk, meant):
    fake.limit = 8192
    answer = embed(client, input="a text", chunk=chunk)
    assert fake.calls[-1]["chunk"] == meant
    assert ("chunks" in answer) == bool(meant)
    assert answer.get("late") == (True if meant and meant.late else None)


@pytest.mark.parametrize(
    ("chunk", "sentence"),
    [
        (256, 'chunk: must be true, false, or an object with "tokens", "overlap" and "late", not a number'),
        ({"size": 9}, 'chunk: \'size\' is none of "tokens", "overlap" and "late"'),
        ({"tokens": 31}, "chunk: tokens must be a whole number from 32 to 510, the model's limit"),
        ({"tokens": 511}, "chunk: tokens must be a whole number from 32 to 510, the model's limit"),
        ({"tokens": True}, "chunk: tokens must be a whole number from 32 to 510, the model's limit"),
        ({"tokens": 1e2}, "chunk: tokens must be a whole number from 32 to 510, the model's limit"),
        (
            {"tokens": 64, "overlap": 33},
            "chunk: overlap must be a whole number from 0 to 32, half of tokens",
        ),
        ({"late": "yes"}, "chunk: late must be true or false, not a string"),
    ],
)
def test_what_chunk_cannot_be(client, fake, chunk, sentence):
    fake.limit = 512
    response = client.post("/api/embed", json={"input": "a text", "chunk": chunk})
    assert response.status_code == 422
    assert response.json["error"] == sentence
    assert list(response.json["details"]) == ["chunk"]


def test_late_chunking_of_cls_is_refused(client):
    body = {"input": "a text", "chunk": {"late": True}, "pooling": "cls"}
    response = client.post("/api/embed", json=body)
    assert response.status_code == 422
    assert response.json["error"] == (
        "late chunking averages the tokens of each passage, so it needs mean pooling, not cls: "
        "ask for mean pooling, or leave late chunking out"
    )


def test_passages_are_bounded_by_the_numbers_of_an_answer(settings, fake):
    client = create_app(replace(settings, max_output_numbers=40 * fake.width), fake).test_client()
    text = "word " * 32 * 41
    response = client.post("/api/embed", json={"input": text, "chunk": {"tokens": 32, "overlap": 0}})
    assert response.status_code == 422
    assert "EMBED_MAX_OUTPUT_NUMBERS" in response.json["error"]
