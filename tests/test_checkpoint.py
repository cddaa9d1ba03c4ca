"""A model folder that is not as it should be: one sentence that names the file."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from app.engine.checkpoint import read_checkpoint
from app.engine.encoder import Encoder, EncoderSettings
from app.engine.errors import ModelError

ENGINES = ("torch", "openvino", "native")


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


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_the_configuration_is_no_json_object(broken_folder, content):
    (broken_folder / "config.json").write_bytes(content)
    refused(broken_folder, "config.json")


def test_the_model_is_of_another_kind(broken_folder):
    configure(broken_folder, model_type="llama")
    refused(broken_folder, "'llama'", "xlm-roberta")


def test_the_configuration_lacks_a_number(broken_folder):
    configure(broken_folder, hidden_size=None)
    refused(broken_folder, "'hidden_size'")


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
    (broken_folder / "model.safetensors").write_bytes(content)
    refused(broken_folder, "model.safetensors")


def test_the_safetensors_are_cut_short(tmp_path, demo_folder):
    folder = tmp_path / "cut"
    shutil.copytree(demo_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    with (demo_folder / "model.safetensors").open("rb") as whole:
        (folder / "model.safetensors").write_bytes(whole.read(1_000_000))
    refused(folder, "model.safetensors", "corrupt")


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
    torch.save({"weight": Malice()}, broken_folder / "pytorch_model.bin")
    refused(broken_folder, "pytorch_model.bin")
    assert not marker.exists()


def test_the_tokenizer_is_corrupt(broken_folder):
    (broken_folder / "tokenizer.json").unlink()
    (broken_folder / "tokenizer.json").write_text('{"model": 5}')
    refused(broken_folder, "tokenizer.json")


def test_the_tokenizer_is_of_a_larger_vocabulary(broken_folder):
    configure(broken_folder, vocab_size=1000)
    refused(broken_folder, "tokenizer.json", "250002", "1000")


def test_a_head_has_another_width(broken_folder):
    torch.save({"weight": torch.zeros(1, 32), "bias": torch.zeros(1)}, broken_folder / "sparse_linear.pt")
    refused(broken_folder, "sparse_linear.pt", "32", "64")


def test_a_head_is_corrupt(broken_folder):
    (broken_folder / "sparse_linear.pt").write_bytes(b"nonsense")
    refused(broken_folder, "sparse_linear.pt")


def test_a_head_is_missing_where_its_sibling_is_there(broken_folder, caplog):
    """The folder still serves dense vectors, and one log line says what it lacks."""
    (broken_folder / "sparse_linear.pt").unlink()
    encoder = load(broken_folder)
    assert encoder.encode(["a"]).dense.shape == (1, 64)
    encoder.close()
    lines = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert lines == [f"the model folder {broken_folder} has no sparse_linear.pt"]
