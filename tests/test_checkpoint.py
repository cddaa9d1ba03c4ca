"""A model folder with something wrong gives one sentence that names the file."""

import contextlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from app.engine.checkpoint import fingerprint, read_checkpoint
from app.engine.encoder import Encoder, EncoderSettings
from app.engine.errors import ModelError
from app.engine.weights import Weights, read_head
from tests.conftest import VOCABULARY

ENGINES = ("torch", "openvino", "native")
ENOUGH = 20_000_000  # bytes, enough for all weights of the tiny model


def load(folder: Path, engine: str = "auto") -> Encoder:
    encoder = Encoder(EncoderSettings(path=folder, threads=1, engine=engine, precision="auto"))
    encoder.load()
    return encoder


def configure(folder: Path, **changes) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refused(folder: Path, *words: str) -> None:
    """Every engine refuses the folder, in one sentence with these words."""
    for engine in ENGINES:
        with pytest.raises(ModelError) as error:
            load(folder, engine)
        message = str(error.value)
        assert "\n" not in message
        assert str(folder) in message
        for word in words:
            assert word in message, engine


def unread(folder: Path, *words: str) -> None:
    """The folder is rejected without being read; one short sentence with these words says why."""
    with pytest.raises(ModelError) as error:
        read_checkpoint(folder)
    message = str(error.value)
    assert str(folder) in message
    assert "\n" not in message
    assert len(message) < 300 + len(str(folder))
    for word in words:
        assert word in message


def test_a_fingerprint_is_of_all_that_decides_the_vectors(broken_folder):
    """Not only of the weights: other tokens are other vectors."""
    seen = {read_checkpoint(broken_folder).fingerprint}
    for name in (
        "tokenizer.json",
        "config.json",
        "pytorch_model.bin",
        "sparse_linear.pt",
        "colbert_linear.pt",
    ):
        file = broken_folder / name
        content = file.read_bytes()
        file.unlink()  # it may be a link to the one that all tests use
        file.write_bytes(content + b" ")
        seen.add(read_checkpoint(broken_folder).fingerprint)
    assert len(seen) == 6


def test_one_changed_matrix_in_the_middle_of_a_large_file_changes_its_fingerprint(tmp_path):
    """As after merging a LoRA adapter: the embeddings before it and the layers after it are the same."""
    file = tmp_path / "model.safetensors"
    file.touch()
    os.truncate(file, 2_271_064_456)  # BGE-M3 in fp32; a file of holes takes no space
    before = fingerprint([file])
    with file.open("r+b") as content:
        content.seek(1_234_567_890)
        content.write(b"x" * (1024 * 1024 * 4))  # a query matrix
    assert fingerprint([file]) != before


def shard(folder: Path, index: object) -> None:
    """Replace the one weight file by an index."""
    (folder / "pytorch_model.bin").unlink()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def test_what_a_bge_m3_folder_says(tiny_folder):
    found = read_checkpoint(tiny_folder)
    assert found.model_type == "xlm-roberta"
    assert (found.width, found.layers, found.attention_heads) == (64, 2, 4)
    assert found.max_tokens == 8192
    assert found.pad_id == 1
    assert found.weights == (tiny_folder / "pytorch_model.bin",)
    assert found.heads == ("sparse", "colbert")
    assert found.trained_pooling == "cls"
    weights = torch.load(found.weights[0], weights_only=True)
    backbone = {name: tensor for name, tensor in weights.items() if not name.startswith("pooler.")}
    assert found.parameters == sum(tensor.numel() for tensor in backbone.values())


def test_what_the_demo_folder_says(demo_folder):
    found = read_checkpoint(demo_folder)
    assert found.model_type == "bert"
    assert found.width == 384
    assert found.max_tokens == 512
    assert found.weights == (demo_folder / "model.safetensors",)
    assert found.heads == ()
    assert found.trained_pooling == "mean"


def test_the_folder_is_missing(tmp_path):
    refused(tmp_path / "nothing", "no model folder", "config.json")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_file_is_missing(broken_folder, name):
    (broken_folder / name).unlink()
    refused(broken_folder, f"has no {name}")


def test_the_weights_are_missing(broken_folder):
    (broken_folder / "pytorch_model.bin").unlink()
    refused(broken_folder, "model.safetensors", "pytorch_model.bin")


def test_a_shard_is_missing(broken_folder):
    (broken_folder / "pytorch_model.bin").unlink()
    index = {"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}
    (broken_folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    refused(broken_folder, "pytorch_model-00001-of-00002.bin", "index.json")


@pytest.mark.parametrize(
    "index",
    [
        {},
        {"weight_map": None},
        {"weight_map": ["pytorch_model-00001-of-00001.bin"]},
        {"weight_map": {}},
        {"weight_map": {"a": None}},
        {"weight_map": {"a": ["b"]}},
        {"weight_map": {"a": "b", "c": 5}},
    ],
    ids=str,
)
def test_an_index_names_no_files(broken_folder, index):
    shard(broken_folder, index)
    unread(broken_folder, "pytorch_model.bin.index.json", "'weight_map'")


@pytest.mark.parametrize(
    "name",
    [
        "../outside.bin",
        "/etc/hostname",
        "1_Pooling/config.json",
        "./config.json",
        "..",
        ".",
        "",
        "1_Pooling",
        "a\0b",
        "a\nb",
        "\ud800",
        1000 * "a",
    ],
)
def test_a_shard_is_a_file_of_the_folder_itself(broken_folder, name):
    (broken_folder.parent / "outside.bin").write_bytes(b"anything")
    shard(broken_folder, {"weight_map": {"a": name}})
    unread(broken_folder, "has no file", "pytorch_model.bin.index.json")


def test_a_shard_may_be_a_link_to_elsewhere(broken_folder, tiny_folder):
    """The cache of Hugging Face's libraries consists of such links."""
    shard(broken_folder, {"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}})
    (broken_folder / "pytorch_model-00001-of-00001.bin").symlink_to(tiny_folder / "pytorch_model.bin")
    encoder = load(broken_folder)
    assert encoder.encode(["a"]).dense.shape == (1, 64)
    encoder.close()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_the_configuration_is_no_json_object(broken_folder, content):
    (broken_folder / "config.json").write_bytes(content)
    refused(broken_folder, "config.json")


@pytest.mark.parametrize(
    "name",
    ["config.json", "sentence_bert_config.json", "1_Pooling/config.json", "model.safetensors.index.json"],
)
@pytest.mark.parametrize("content", ['{"a": ' + 100_000 * "[", '{"a": ' + 5000 * "1" + "}", "5"])
def test_a_file_is_nested_too_deep_or_no_object(broken_folder, name, content):
    (broken_folder / name).unlink(missing_ok=True)
    (broken_folder / name).write_text(content)
    unread(broken_folder, name)


def test_the_folder_may_not_be_entered(broken_folder, monkeypatch):
    def deny(file):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(Path, "is_dir", deny)
    unread(broken_folder, "cannot be read: Permission denied")


def test_the_model_is_of_another_kind(broken_folder):
    configure(broken_folder, model_type="llama")
    refused(broken_folder, "'llama'", "xlm-roberta")


@pytest.mark.parametrize("key", ["model_type", "hidden_act"])
@pytest.mark.parametrize(
    "value", [None, 5, ["gelu"], {}, 10_000 * "a", "two\nlines"], ids=lambda v: str(v)[:9]
)
def test_a_kind_is_no_word_that_is_known(broken_folder, key, value):
    configure(broken_folder, **{key: value})
    unread(broken_folder, "config.json", key, "gelu" if key == "hidden_act" else "xlm-roberta")


def test_the_configuration_lacks_a_number(broken_folder):
    configure(broken_folder, hidden_size=None)
    refused(broken_folder, "'hidden_size'")


@pytest.mark.parametrize(
    "key",
    [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
        "max_position_embeddings",
        "type_vocab_size",
    ],
)
@pytest.mark.parametrize(
    "value", [0, -64, 64.0, "64", True, [64], 1 << 31, 10**4299], ids=lambda v: str(v)[:9]
)
def test_a_size_is_none(broken_folder, key, value):
    configure(broken_folder, **{key: value})
    unread(broken_folder, "config.json", repr(key))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pad_token_id", -1),
        ("pad_token_id", VOCABULARY),  # the embedding table has no such row
        ("pad_token_id", None),
        ("pad_token_id", 9000),  # no positions are left
        ("num_attention_heads", 3),
        ("max_position_embeddings", 4),  # leave two tokens
        *(("layer_norm_eps", value) for value in ("1e-5", None, [], True, 0.0, -1e-5, 1e300)),
        *(("layer_norm_eps", float(value)) for value in ("inf", "nan")),
    ],
)
def test_a_number_does_not_fit(broken_folder, key, value):
    configure(broken_folder, **{key: value})
    unread(broken_folder, "config.json", "max_position_embeddings" if value == 9000 else key)


@pytest.mark.parametrize("value", [0, -1, 2, True, 8.5, "512", [512]], ids=str)
def test_a_texts_limit_is_no_number(broken_folder, value):
    (broken_folder / "sentence_bert_config.json").unlink()
    (broken_folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": value}))
    unread(broken_folder, "sentence_bert_config.json", "'max_seq_length'")


@pytest.mark.parametrize(("value", "limit"), [(None, 8192), (512, 512), (int(1e30), 8192)])
def test_a_texts_limit(broken_folder, value, limit):
    (broken_folder / "sentence_bert_config.json").unlink()
    (broken_folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": value}))
    assert read_checkpoint(broken_folder).max_tokens == limit


@pytest.mark.parametrize("key", ["hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size"])
def test_a_size_is_far_more_than_the_weights_hold(broken_folder, key):
    """No engine allocates memory, or builds layer after layer, before it checks the size."""
    configure(broken_folder, **{key: (1 << 31) - 4})
    unread(broken_folder, "pytorch_model.bin", "fewer than", "config.json")


@pytest.mark.parametrize("kept", [0, 1000, 0.5, 0.999])
def test_the_weights_are_cut_short(broken_folder, tiny_folder, kept):
    whole = (tiny_folder / "pytorch_model.bin").read_bytes()
    file = broken_folder / "pytorch_model.bin"
    file.unlink()
    file.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    refused(broken_folder, "pytorch_model.bin", "corrupt")


@pytest.mark.parametrize(
    "content", [b"", b"not a tensor file at all", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "]
)
def test_the_safetensors_are_corrupt(broken_folder, content):
    file = broken_folder / "model.safetensors"
    file.write_bytes(content)
    refused(broken_folder, "model.safetensors", "corrupt")
    os.truncate(file, ENOUGH)
    refused(broken_folder, "model.safetensors", "corrupt")


@pytest.mark.parametrize("kept", [0.001, 0.9])
def test_the_safetensors_are_cut_short(broken_folder, tiny_folder, kept):
    weights = torch.load(tiny_folder / "pytorch_model.bin", weights_only=True)
    file = broken_folder / "model.safetensors"
    save_file(weights, file)
    os.truncate(file, int(kept * file.stat().st_size))
    refused(broken_folder, "model.safetensors", "corrupt")


def test_the_weights_have_another_width(broken_folder):
    configure(broken_folder, hidden_size=128)
    refused(broken_folder, "pytorch_model.bin", "fit", "config.json")


def test_the_weights_lack_a_layer(broken_folder):
    configure(broken_folder, num_hidden_layers=3)
    refused(broken_folder, "pytorch_model.bin lacks", "encoder.layer.2")


def test_the_weights_execute_no_code(broken_folder):
    """A pickle that would run a command is refused, not run."""
    marker = broken_folder / "ran"

    class Malice:
        def __reduce__(self):
            return (Path.touch, (marker,))

    (broken_folder / "pytorch_model.bin").unlink()
    whole = {"weight": Malice(), "size": torch.zeros(ENOUGH, dtype=torch.uint8)}
    torch.save(whole, broken_folder / "pytorch_model.bin")
    refused(broken_folder, "pytorch_model.bin", "corrupt")
    assert not marker.exists()


def test_the_tokenizer_is_corrupt(broken_folder):
    (broken_folder / "tokenizer.json").unlink()
    (broken_folder / "tokenizer.json").write_text('{"model": 5}')
    refused(broken_folder, "tokenizer.json")


def test_the_tokenizer_is_of_a_larger_vocabulary(broken_folder):
    configure(broken_folder, vocab_size=1000)
    refused(broken_folder, "tokenizer.json", str(VOCABULARY), "1000")


def test_a_head_has_another_width(broken_folder):
    torch.save({"weight": torch.zeros(1, 32), "bias": torch.zeros(1)}, broken_folder / "sparse_linear.pt")
    refused(broken_folder, "sparse_linear.pt", "32", "64")


def test_a_head_is_corrupt(broken_folder):
    (broken_folder / "sparse_linear.pt").write_bytes(b"nonsense")
    refused(broken_folder, "sparse_linear.pt")


WORDS = "embeddings.word_embeddings.weight"
ONES = torch.ones(1, 64)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda tensor: tensor.to(torch.int8), "torch.int8"),  # a quantised checkpoint, without its scales
        (lambda tensor: tensor.to(torch.float8_e4m3fn), "torch.float8_e4m3fn"),
        (lambda tensor: tensor.to(torch.complex64), "torch.complex64"),
        (lambda tensor: tensor.to_sparse(), "sparse"),
    ],
)
def test_weights_that_are_no_ordinary_numbers(broken_folder, tiny_folder, damage, words):
    weights = torch.load(tiny_folder / "pytorch_model.bin", weights_only=True)
    (broken_folder / "pytorch_model.bin").unlink()
    torch.save(weights | {WORDS: damage(weights[WORDS])}, broken_folder / "pytorch_model.bin")
    torch.save({"weight": damage(ONES), "bias": torch.zeros(1)}, broken_folder / "sparse_linear.pt")
    found = read_checkpoint(broken_folder)
    with pytest.raises(ModelError, match=rf"pytorch_model.bin .* {WORDS} .*{words}"):
        Weights(found)(WORDS, VOCABULARY, 64)
    with pytest.raises(ModelError, match=rf"sparse_linear.pt .* weight .*{words}"):
        read_head(found, "sparse")


def test_weights_may_be_saved_as_parameters(broken_folder):
    head = {"weight": torch.nn.Parameter(ONES), "bias": torch.nn.Parameter(torch.zeros(1))}
    torch.save(head, broken_folder / "sparse_linear.pt")
    matrix, bias = read_head(read_checkpoint(broken_folder), "sparse")
    assert (matrix.sum(), bias.sum()) == (64, 0)


def test_a_damaged_pickle_is_one_sentence(broken_folder):
    """Whatever the unpickler raises because of its bytes."""
    file = broken_folder / "sparse_linear.pt"
    head = {"weight": ONES, "bias": torch.zeros(1)}
    torch.save(head, file, _use_new_zipfile_serialization=False)
    whole = file.read_bytes()
    checkpoint = read_checkpoint(broken_folder)
    for place in range(0, len(whole) - 4 * 64, 3):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with contextlib.suppress(ModelError):
            read_head(checkpoint, "sparse")


def test_a_bias_has_another_size(broken_folder):
    torch.save({"weight": ONES, "bias": torch.zeros(2)}, broken_folder / "sparse_linear.pt")
    refused(broken_folder, "sparse_linear.pt", "(2,)", "(1,)")


def test_the_shard_at_fault_is_named(broken_folder, tiny_folder):
    weights = torch.load(tiny_folder / "pytorch_model.bin", weights_only=True)
    shards = {"first.bin": {}, "second.bin": {}}
    for name, tensor in weights.items():
        shards["first.bin" if name == WORDS else "second.bin"][name] = tensor
    shards["second.bin"]["embeddings.LayerNorm.bias"] = torch.zeros(63)
    del shards["second.bin"]["encoder.layer.1.output.dense.bias"]
    shard(broken_folder, {"weight_map": {name: file for file in shards for name in shards[file]}})
    for file, content in shards.items():
        torch.save(content, broken_folder / file)
    found = Weights(read_checkpoint(broken_folder))
    with pytest.raises(ModelError, match=r"second.bin does not fit .*config.json"):
        found("embeddings.LayerNorm.bias", 64)
    with pytest.raises(ModelError, match=rf"{broken_folder} lacks encoder.layer.1.output.dense.bias"):
        found("encoder.layer.1.output.dense.bias", 64)


def test_a_head_is_missing_where_its_sibling_is_there(broken_folder, caplog):
    """The folder still serves dense vectors, and one log line says what it lacks."""
    (broken_folder / "sparse_linear.pt").unlink()
    encoder = load(broken_folder)
    assert encoder.encode(["a"]).dense.shape == (1, 64)
    encoder.close()
    lines = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert lines == [f"the model folder {broken_folder} has no sparse_linear.pt"]
