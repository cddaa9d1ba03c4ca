"""Exports: made once, found again, remade when something changed, never half there; and their precision."""

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from app.engine import export
from app.engine.checkpoint import read_checkpoint
from app.engine.encoder import Encoder, EncoderSettings
from app.engine.errors import ModelError
from app.engine.export import PARTIAL, ensure_export, find_export, read_notes
from app.engine.graph import GELU_SHIFT, to_bf16
from app.engine.openvino_backend import choose_precision
from tests.conftest import ROOT
from tests.server import wait_for

TEXTS = (ROOT / "app" / "engine" / "calibration.txt").read_text().splitlines()[1::2]


@pytest.fixture
def folder(broken_folder: Path) -> Path:
    """A tiny checkpoint without exports, free to change."""
    shutil.rmtree(broken_folder / "openvino", ignore_errors=True)
    return broken_folder


def times(file: Path) -> int:
    return file.stat().st_mtime_ns


def test_an_export_is_made_once_and_found_again(folder):
    checkpoint = read_checkpoint(folder)
    assert find_export(checkpoint, "bf16", None) is None
    graph = ensure_export(checkpoint, "bf16", None)
    assert graph == folder / "openvino" / "bf16" / "encoder.xml"
    made = times(graph)
    assert ensure_export(checkpoint, "bf16", None) == graph
    assert times(graph) == made
    assert {file.name for file in graph.parent.iterdir()} == {"encoder.xml", "encoder.bin", "export.json"}
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in graph.parent.iterdir())
    weights = (folder / "pytorch_model.bin").stat().st_size
    assert sum(file.stat().st_size for file in graph.parent.iterdir()) < 0.6 * weights


def test_an_export_of_other_weights_is_remade(folder, tiny_folder):
    first = ensure_export(read_checkpoint(folder), "bf16", None)
    made = times(first)
    torch.save({"weight": torch.ones(1, 64), "bias": torch.zeros(1)}, folder / "sparse_linear.pt")
    assert find_export(read_checkpoint(folder), "bf16", None) is None
    assert times(ensure_export(read_checkpoint(folder), "bf16", None)) > made


@pytest.mark.parametrize("change", [{"openvino": "2020.1"}, {"format": 0}, {"precision": "fp32"}])
def test_an_export_of_another_version_is_remade(folder, change):
    checkpoint = read_checkpoint(folder)
    graph = ensure_export(checkpoint, "bf16", None)
    notes = graph.parent / "export.json"
    content = json.loads(notes.read_text())
    content["identity"] |= change
    notes.write_text(json.dumps(content))
    made = times(graph)
    assert times(ensure_export(checkpoint, "bf16", None)) > made


@pytest.mark.parametrize("damage", ["encoder.xml", "export.json"])
def test_an_export_that_lacks_a_file_is_remade(folder, damage):
    checkpoint = read_checkpoint(folder)
    graph = ensure_export(checkpoint, "bf16", None)
    (graph.parent / damage).unlink()
    ensure_export(checkpoint, "bf16", None)
    assert (graph.parent / damage).is_file()


def test_an_export_cut_off_half_way_leaves_nothing_under_its_name(folder, monkeypatch):
    def cut_off(graph, file):
        file.write_text("half a graph")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "_save", cut_off)
    with pytest.raises(ModelError, match=r"cannot be written to .*: No space left on device"):
        ensure_export(read_checkpoint(folder), "bf16", None)
    assert [file.name for file in (folder / "openvino").iterdir()] == [".lock"]
    monkeypatch.undo()
    assert ensure_export(read_checkpoint(folder), "bf16", None).is_file()


def test_a_damaged_graph_is_one_sentence(folder):
    graph = ensure_export(read_checkpoint(folder), "bf16", None)
    graph.write_text("<not a graph")
    with pytest.raises(ModelError, match=r"OpenVINO cannot load .*encoder.xml"):
        Encoder(EncoderSettings(path=folder, precision="bf16")).load()


def test_a_read_only_model_is_exported_to_the_cache(folder, tmp_path, monkeypatch):
    checkpoint = read_checkpoint(folder)
    real = Path.mkdir

    def mkdir(self, *args, **kwargs):
        if self.is_relative_to(folder):
            raise OSError(30, "Read-only file system")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(ModelError, match="set EMBED_CACHE_DIR"):
        ensure_export(checkpoint, "bf16", None)
    graph = ensure_export(checkpoint, "bf16", tmp_path / "cache")
    assert graph.is_relative_to(tmp_path / "cache")
    assert find_export(checkpoint, "bf16", tmp_path / "cache") == graph.parent


NO_LOCKS = """
import errno, fcntl
def flock(file, operation):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""


@pytest.mark.parametrize("begin", ["", NO_LOCKS], ids=["locks", "no locks"])
def test_two_that_start_at_once_get_one_export(folder, begin):
    code = begin + (
        "import sys; from pathlib import Path;"
        "from app.engine.checkpoint import read_checkpoint; from app.engine.export import ensure_export;"
        "print(ensure_export(read_checkpoint(Path(sys.argv[1])), 'bf16', None).stat().st_mtime_ns)"
    )

    def start(_):
        command = [sys.executable, "-c", code, str(folder)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(start, range(2))
    assert one == other


def test_what_one_that_was_killed_left_is_removed(folder):
    place = folder / "openvino"
    own, old, others = (place / f"{PARTIAL}{name}-x" for name in (platform.node(), "old", "other"))
    for left in (own, old, others):
        left.mkdir(parents=True)
        (left / "encoder.bin").write_bytes(b"half")
    os.utime(old, (0, 0))
    ensure_export(read_checkpoint(folder), "bf16", None)
    assert {file.name for file in place.iterdir()} == {".lock", "bf16", others.name}


def test_who_waits_for_anothers_export_says_so(folder, caplog):
    (folder / "openvino").mkdir()
    caplog.set_level("INFO")
    with ThreadPoolExecutor(1) as pool:
        with (folder / "openvino" / ".lock").open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            graph = pool.submit(ensure_export, read_checkpoint(folder), "bf16", None)
            wait_for(lambda: "waiting for it" in caplog.text)
            assert not graph.done()
        assert graph.result(60).is_file()


def cosines(a, b):
    return (a * b).sum(axis=1)


def vectors(load_encoder, folder, **settings):
    return load_encoder(folder, **settings).encode(TEXTS).dense


def test_fp32_is_fp32(load_encoder, demo_folder):
    exact = vectors(load_encoder, demo_folder, engine="torch")
    found = vectors(load_encoder, demo_folder, precision="fp32")
    assert cosines(exact, found).min() >= 0.999999


def test_bf16_is_close(load_encoder, demo_folder):
    if choose_precision("auto")[0] != "bf16":
        pytest.skip("the processor does not multiply bf16")
    exact = vectors(load_encoder, demo_folder, precision="fp32")
    found = vectors(load_encoder, demo_folder, precision="bf16")
    assert cosines(exact, found).min() >= 0.9997


def test_int8_is_measured_and_within_its_promise(load_encoder, demo_folder):
    """The promise is for real weights on held-out text, and so is what stands beside the export."""
    exact = vectors(load_encoder, demo_folder, precision="fp32")
    found = vectors(load_encoder, demo_folder, precision="int8")
    assert cosines(exact, found).mean() >= 0.9995
    assert cosines(exact, found).min() >= 0.998
    quality = read_notes(find_export(read_checkpoint(demo_folder), "int8", None))["quality"]
    assert quality["texts"] == len(TEXTS) == 100
    assert quality["cosine_mean"] == pytest.approx(cosines(exact, found).mean(), abs=1e-4)
    assert quality["top10_overlap"] >= 0.94


def test_a_text_alone_equals_the_same_text_in_a_batch_in_int8_too(load_encoder, demo_folder):
    encoder = load_encoder(demo_folder, precision="int8")
    together = encoder.encode(TEXTS[:20]).dense
    alone = np.concatenate([encoder.encode([text]).dense for text in TEXTS[:20]])
    assert cosines(together, alone).min() >= 0.9998


def test_what_auto_chooses_is_said(monkeypatch):
    monkeypatch.setattr("app.engine.openvino_backend.native_bf16", lambda: "amx_bf16")
    assert choose_precision("auto") == ("bf16", "the processor has amx_bf16")
    monkeypatch.setattr("app.engine.openvino_backend.native_bf16", lambda: "")
    assert choose_precision("auto") == ("fp32", "the processor does not multiply bf16")
    assert choose_precision("bf16") == ("fp32", "bf16 was asked for, but the processor does not multiply it")
    monkeypatch.setattr("app.engine.openvino_backend.cpu_features", lambda: frozenset({"avx512_vnni"}))
    assert choose_precision("int8") == ("int8", "asked for")
    monkeypatch.setattr("app.engine.openvino_backend.cpu_features", lambda: frozenset({"avx2"}))
    assert "no VNNI" in choose_precision("int8")[1]


def test_the_torch_engine_runs_in_fp32_only(tiny_folder):
    with pytest.raises(ModelError, match="the torch engine runs in fp32, not in int8"):
        Encoder(EncoderSettings(path=tiny_folder, engine="torch", precision="int8")).load()


def test_an_engine_that_is_not_installed_is_one_sentence(tiny_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "app.engine.openvino_backend", None)
    with pytest.raises(ModelError, match="the openvino engine cannot be loaded"):
        Encoder(EncoderSettings(path=tiny_folder)).load()


def test_bf16_rounds_to_nearest_even():
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    expected = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(to_bf16(values), expected)


def test_the_shift_makes_every_gelu_positive():
    x = torch.linspace(-10, 10, 100_001, dtype=torch.float64)
    assert torch.nn.functional.gelu(x).min() > -GELU_SHIFT


def test_more_threads_than_processors_still_work(tiny_folder):
    encoder = Encoder(EncoderSettings(path=tiny_folder, threads=4 * (os.cpu_count() or 1), precision="fp32"))
    encoder.load()
    assert encoder.encode(["a"]).dense.shape == (1, 64)
    encoder.close()


def test_several_batches_at_a_time_give_the_same_vectors(load_encoder, demo_folder):
    exact = load_encoder(demo_folder, precision="fp32")
    several = load_encoder(demo_folder, precision="fp32", throughput=True)
    texts = [f"{text} {number}" for number, text in enumerate(TEXTS * 3)]
    calls = [texts[start::4] for start in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda call: several.encode(call).dense, calls))
    for call, found in zip(calls, together, strict=True):
        assert cosines(found, exact.encode(call).dense).min() >= 0.999999


# Loads with several streams, and makes long the moment in which OpenVINO's bindings set themselves up.
LOAD_SLOWLY = """
import sys, time
from pathlib import Path
import numpy.lib
from app.engine.encoder import Encoder, EncoderSettings

class SlowVersion(numpy.lib.NumpyVersion):
    def __init__(self, version):
        print("asked", flush=True)
        time.sleep(0.5)
        super().__init__(version)

numpy.lib.NumpyVersion = SlowVersion
Encoder(EncoderSettings(Path(sys.argv[1]), threads=2, throughput=True, precision="fp32")).load()
print("loaded", flush=True)
"""


def test_the_first_batches_of_several_streams_do_not_wait_for_each_other(tiny_folder):
    ensure_export(read_checkpoint(tiny_folder), "fp32", None)  # to make one is to call the bindings
    done = subprocess.run(
        [sys.executable, "-c", LOAD_SLOWLY, tiny_folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == ["asked", "loaded"], done.stderr
