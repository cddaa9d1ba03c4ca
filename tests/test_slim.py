"""The image `slim`: exports are served, alike, without torch, transformers and what else it lacks."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from app import create_app
from app.api.service import Service
from app.cli.download import DownloadError, fetch
from app.cli.hub import BGE_M3
from app.config import Settings
from app.engine.backends import Place
from app.engine.checkpoint import read_checkpoint
from app.engine.errors import ModelError
from app.engine.loading import load_model
from app.engine.prepare import prepare
from tests.conftest import ROOT
from tests.exports_only import TEXTS, digest
from tests.server import float32, serving
from tests.test_lock import listed, locked

LACKING = set(listed("requirements")) - set(locked("requirements-slim")) - set(locked("requirements-tracing"))
# The modules of these packages, but for namespaces that others share.
LACKING_MODULES = sorted(
    module
    for module, packages in packages_distributions().items()
    if {canonicalize_name(package) for package in packages} <= LACKING
)


@pytest.fixture(scope="module")
def without(tmp_path_factory) -> dict[str, str]:
    """The environment of a Python that has not what the image lacks."""
    folder = tmp_path_factory.mktemp("without")
    folder.joinpath("sitecustomize.py").write_text(
        f"import sys\nsys.modules |= dict.fromkeys({LACKING_MODULES})\n"
    )
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tiny_folder, tiny_reranker) -> tuple[Path, Path]:
    """An encoder with heads and a reranker, with what their exports hold of them."""
    folders = tmp_path_factory.mktemp("exported")
    for folder in (tiny_folder, tiny_reranker):
        shutil.copytree(folder, folders / folder.name)
    return folders / tiny_folder.name, folders / tiny_reranker.name


def test_what_only_exports_need_is_lacking():
    assert {"torch", "transformers", "huggingface_hub", "sympy", "networkx", "fsspec"} <= set(LACKING_MODULES)


@pytest.mark.parametrize(
    ("engine", "precision"),
    [
        ("openvino", "fp32"),
        pytest.param("openvino", "int8", marks=pytest.mark.slow),
        pytest.param("native", "fp32", marks=pytest.mark.slow),
        pytest.param("native", "int8", marks=pytest.mark.slow),
    ],
)
def test_exports_give_the_same_numbers_without_what_made_them(exported, without, engine, precision):
    for folder in exported:
        prepare(read_checkpoint(folder), engine, precision, Place())
    done = subprocess.run(
        [sys.executable, "-m", "tests.exports_only", *exported, engine, precision],
        env=os.environ | without,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == digest(*exported, engine, precision), done.stderr


def test_a_server_of_exports_needs_no_more(exported, without, load_encoder, tmp_path):
    encoder, reranker = exported
    ours = {"engine": "native", "precision": "fp32"}
    for folder in exported:
        prepare(read_checkpoint(folder), *ours.values(), Place())
    environ = {"EMBED_MODEL_PATH": str(encoder), "EMBED_RERANKER_PATH": str(reranker)} | without
    with serving(tmp_path / "log", EMBED_ENGINE="native", EMBED_PRECISION="fp32", **environ) as server:
        assert server.bits(input=TEXTS) == float32(load_encoder(encoder, **ours).encode(TEXTS).dense)
        assert server.post("/rerank", {"query": TEXTS[0], "texts": TEXTS})[0] == 200


def test_where_no_export_can_be_made_one_sentence_says_where_it_can(broken_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for engine in ("native", "openvino"):
        shutil.rmtree(broken_folder / engine, ignore_errors=True)
        with pytest.raises(ModelError) as raised:
            load_model(read_checkpoint(broken_folder), engine, "fp32", Place())
        assert str(raised.value).startswith(f"{broken_folder} has no {engine}/fp32 export")
        command = f"EMBED_ENGINE={engine} flask model export {broken_folder} --precision fp32"
        assert f"run {command} with the full image" in str(raised.value)
        assert not (broken_folder / engine).exists()


def test_a_server_without_an_export_says_only_that(broken_folder, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "torch", None)
    shutil.rmtree(broken_folder / "native", ignore_errors=True)
    app = create_app(Settings(model_path=broken_folder, engine="native", precision="fp32"))
    assert not Service(app).load()
    assert caplog.messages[-1].endswith("with the full image or installation")


def test_without_the_hub_library_download_says_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DownloadError, match=r"downloading needs huggingface_hub, .* with the full image"):
        fetch(BGE_M3, tmp_path / "bge-m3")


def test_without_torch_its_engine_cannot_be_asked_for(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "app.engine.torch_backend", raising=False)
    monkeypatch.delitem(sys.modules, "app.engine.weights", raising=False)
    with pytest.raises(ModelError, match=r"the torch engine cannot run here: .*torch"):
        load_model(read_checkpoint(exported[0]), "torch", "fp32", Place())
