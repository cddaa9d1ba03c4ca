"""How clients spell things: booleans as words, other field names, misspelt ones, unsupported ones."""

import logging

import pytest

from app.engine.embeddings import Chunking

TEXTS = ["one two", "three"]


@pytest.mark.parametrize(("word", "sparse"), [("true", True), ("False", False), ("TRUE", True)])
def test_a_boolean_may_be_a_word(client, word, sparse):
    assert ("sparse" in client.post("/api/embed", json={"input": "a", "return_sparse": word}).json) == sparse


@pytest.mark.parametrize(
    ("value", "side"),
    [(True, "right"), ("true", "right"), ("END", "right"), ("start", "left"), ("NONE", None), (False, None)],
)
@pytest.mark.parametrize(
    ("path", "field"),
    [("/api/embed", "input"), ("/v1/embeddings", "input"), ("/embed", "inputs"), ("/v2/embed", "texts")],
)
def test_truncate_is_a_boolean_or_a_word_everywhere(client, fake, path, field, value, side):
    assert client.post(path, json={field: TEXTS, "truncate": value}).status_code == 200
    assert fake.calls[-1]["truncate"] == side


def test_inputs_may_be_objects_with_a_text(client):
    expected = client.post("/v1/embeddings", json={"input": TEXTS}).json
    assert client.post("/v1/embeddings", json={"input": [{"text": text} for text in TEXTS]}).json == expected
    one = client.post("/v1/embeddings", json={"input": {"text": TEXTS[0]}}).json["data"]
    assert one[0]["embedding"] == expected["data"][0]["embedding"]
    answer = client.post("/v1/embeddings", json={"input": [{"image": "a"}]})
    told = 'input: text 0 must be a string, or an object with a "text" and no image'
    assert answer.json["error"]["message"] == told
    answer = client.post("/v1/embeddings", json={"input": [{"text": "a", "image": "data:,"}]})
    assert answer.json["error"]["message"] == told


@pytest.mark.parametrize("name", ["embedding_type", "encoding_type", "encoding_format"])
@pytest.mark.parametrize("kind", ["float", "base64", "binary", "ubinary", "int8"])
def test_jinas_kinds_of_numbers(client, name, kind):
    expected = client.post("/api/embed", json={"input": TEXTS, "encoding_format": kind}).json["embeddings"]
    found = client.post("/v1/embeddings", json={"input": TEXTS, name: kind}).json["data"]
    assert [row["embedding"] for row in found] == expected


def test_jinas_kind_goes_before_openais(client):
    """OpenAI's own clients send base64 by default."""
    body = {"input": "a", "encoding_format": "base64", "embedding_type": "ubinary"}
    assert isinstance(client.post("/v1/embeddings", json=body).json["data"][0]["embedding"], list)


def test_jinas_vectors_may_keep_their_length(client):
    unit = client.post("/v1/embeddings", json={"input": "a", "normalized": True}).json["data"][0]["embedding"]
    for name in ("normalized", "normalize"):
        found = client.post("/v1/embeddings", json={"input": "a", name: False}).json["data"][0]
        assert found["embedding"] == pytest.approx([2 * value for value in unit])


def test_jinas_late_chunking_reads_the_texts_as_one_document(client, fake):
    body = {"input": ["one text", "another"], "late_chunking": True}
    answer = client.post("/v1/embeddings", json=body).json
    assert len(answer["data"]) == 2
    assert fake.calls[-1]["chunk"] == Chunking(tokens=None, overlap=0, late=True)
    assert client.post("/v1/embeddings", json=body | {"late_chunking": False}).status_code == 200
    assert fake.calls[-1]["chunk"] is None
    refused = client.post("/v1/embeddings", json=body | {"pooling": "cls"})
    assert refused.status_code == 400
    assert refused.json["error"]["param"] == "pooling"
    assert "mean pooling" in refused.json["detail"]


@pytest.mark.parametrize(
    ("harmless", "harm"),
    [
        ({"task": "retrieval.query"}, {"task": "retrieval.haiku"}),
        ({"chunk": False}, {"chunk": True}),
        ({"return_multivector": False}, {"return_multivector": True}),
        ({"prompt": ""}, {"prompt": "query: "}),
        ({"prompt_name": None}, {"prompt_name": "query"}),
        ({"add_special_tokens": True}, {"add_special_tokens": False}),
        ({"truncate_prompt_tokens": -1}, {"truncate_prompt_tokens": 100}),
        ({"output_dtype": "float"}, {"output_dtype": "int8"}),
        ({"modality": "text"}, {"modality": "image"}),
        ({"input_type": "passage"}, {"embedding_type": "uint8"}),
    ],
)
def test_what_changes_vectors_is_served_or_refused(client, harmless, harm):
    expected = client.post("/v1/embeddings", json={"input": "a"}).json
    assert client.post("/v1/embeddings", json={"input": "a", **harmless}).json == expected
    answer = client.post("/v1/embeddings", json={"input": "a", **harm})
    assert answer.status_code == 400
    assert answer.json["error"]["param"] in harm
    assert answer.json["detail"] == answer.json["error"]["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/embed",
        "/v1/embeddings",
        "/embeddings",
        "/v1/embed",
        "/v2/embed",
        "/embed",
        "/rerank",
        "/v2/rerank",
    ],
)
def test_what_is_nested_absurdly_deep_in_a_field_is_a_fault_of_the_field(client, path):
    deep = b"[" * 1000 + b"]" * 1000
    fields = b'"input": "a", "inputs": "a", "texts": ["a"], "query": "a", "documents": ["a"], '
    if "rerank" in path:
        fields = fields.replace(b'"texts": ["a"], ', b"")
    elif path == "/v2/embed":
        fields = fields.replace(b'"inputs": "a", ', b"")
    body = b"{" + fields + b'"truncate": ' + deep + b"}"
    answer = client.post(path, data=body, content_type="application/json")
    assert answer.status_code in (400, 422)
    assert "truncate: must be true or false" in answer.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/embed", {"input": "a"}),
        ("/api/embeddings", {"prompt": "a"}),
        ("/v1/embeddings", {"input": "a"}),
        ("/embeddings", {"input": "a"}),
        ("/embed", {"inputs": "a"}),
        ("/v1/embed", {"texts": ["a"]}),
        ("/v2/embed", {"texts": ["a"]}),
        ("/vectors", {"text": "a"}),
        ("/rerank", {"query": "a", "texts": ["b"]}),
        ("/v1/rerank", {"query": "a", "documents": ["b"]}),
    ],
)
def test_pooling_and_the_side_that_is_cut_are_taken_everywhere(client, fake, path, body):
    assert (
        client.post(path, json=body | {"pooling": "cls", "truncation_direction": "left"}).status_code == 200
    )
    assert (fake.calls[-1]["pooling"], fake.calls[-1]["truncate"]) == ("cls", "left")
    assert client.post(path, json=body | {"truncate": False}).status_code == 200
    assert fake.calls[-1]["truncate"] is None


def test_two_names_of_a_field_may_not_contradict(client):
    body = {"input": "a", "dimensions": 4, "output_dimension": 4}
    assert client.post("/v1/embeddings", json=body).status_code == 200
    answer = client.post("/v1/embeddings", json=body | {"output_dimension": 2})
    assert answer.json["detail"] == "output_dimension: cannot be given together with dimensions"
    deep = "[" * 1000 + "]" * 1000
    body = f'{{"input": "a", "dimensions": {deep}, "output_dimension": {deep}}}'
    answer = client.post("/v1/embeddings", data=body, content_type="application/json")
    assert answer.json["detail"] == "output_dimension: cannot be given together with dimensions"


def test_other_names_of_fields(client):
    found = client.post("/v1/embeddings", json={"input": "a", "output_dimension": 4}).json["data"][0]
    assert len(found["embedding"]) == 4
    assert client.post("/v1/embeddings", json={"input": "a " * 9, "truncation": False}).status_code == 400


MISSPELT = "unknown field 'retrun_sparse' is ignored, did you mean 'return_sparse'?"


def test_a_misspelt_field_is_named_in_a_header_and_the_log(client, caplog):
    with caplog.at_level(logging.INFO, "app.api.request_log"):
        answer = client.post("/api/embed", json={"input": "a", "retrun_sparse": True, "user": "me"})
    assert answer.status_code == 200
    assert answer.headers["Warning"] == f'199 - "{MISSPELT}"'
    assert caplog.records[-1].misspelt == "retrun_sparse"
    assert caplog.messages[-1].endswith("misspelt retrun_sparse")


@pytest.mark.parametrize("name", ["drop_params", "user", "xyz", "ünput", "inp\nut", "a" * 65])
def test_other_fields_are_ignored_without_a_word(client, name):
    answer = client.post("/api/embed", json={"input": "a", name: 1})
    assert answer.status_code == 200
    assert "Warning" not in answer.headers


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/embed", {"input": "a"}),
        ("/api/score", {"query": "a", "passages": ["b"]}),
        ("/api/score", {"pairs": []}),
    ],
)
def test_who_is_strict_hears_of_every_unknown_field(client, path, body):
    assert client.post(path, json=body | {"strict": True}).status_code == 200
    assert client.post(path, json=body | {"strict": False, "xyz": 1, "pooing": "cls"}).status_code == 200
    answer = client.post(path, json=body | {"strict": True, "xyz": 1, "pooing": "cls"})
    assert answer.status_code == 422
    assert "Warning" not in answer.headers
    assert answer.json["details"] == {
        "xyz": ["is no field of this request"],
        "pooing": ["is no field of this request: did you mean 'pooling'?"],
    }


@pytest.mark.parametrize("name", ["ünput", "inp\nut", "a" * 65])
def test_who_is_strict_hears_of_a_strange_name_too(client, name):
    answer = client.post("/api/embed", json={"input": "a", "strict": True, name: 1})
    assert answer.status_code == 422
    assert answer.json["details"] == {name[:64]: ["is no field of this request"]}


def test_many_unknown_fields_cost_little(client):
    answer = client.post("/api/embed", json={"input": "a"} | {f"inpu{number}": 1 for number in range(5_000)})
    assert answer.status_code == 200
    assert len(answer.headers["Warning"]) < 2000
