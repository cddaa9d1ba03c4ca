"""Exports are made once, found again, remade after a change, and never incomplete; and their precision."""

import fcntl
import json
import logging
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

from app.engine import openvino_export
from app.engine.backends import Place, candidates, choose, resolve_precision
from app.engine.checkpoint import read_checkpoint
from app.engine.encoder import Encoder, EncoderSettings
from app.engine.errors import ModelError
from app.engine.export import PARTIAL, ensure_export, find_export
from app.engine.graph import GELU_SHIFT
from app.engine.measure import quality
from app.engine.native.compiler import load_library
from app.engine.native.export import NativeExporter
from app.engine.openvino_export import OpenVINOExporter
from app.engine.prepare import compare, known_of_int8, prepare
from app.engine.processor import cpu_features, kind_of
from app.engine.smoothing import to_bf16
from tests.conftest import HELD_OUT, ROOT
from tests.server import wait_for


@pytest.fixture
def folder(broken_folder: Path) -> Path:
    """A tiny checkpoint without exports, which a test may change."""
    for engine in ("native", "openvino"):
        shutil.rmtree(broken_folder / engine, ignore_errors=True)
    return broken_folder


OPENVINO = OpenVINOExporter()
# Each engine's exporter, and a file that its export needs to be complete.
EXPORTERS = [(NativeExporter(), "shrunk.lines.npy"), (OPENVINO, "encoder.xml")]


@pytest.fixture(params=EXPORTERS, ids=lambda given: given[0].engine)
def given(request):
    return request.param


@pytest.fixture
def exporter(given):
    return given[0]


def times(folder: Path) -> int:
    return (folder / "export.json").stat().st_mtime_ns


def test_an_export_is_made_once_and_found_again(folder, exporter):
    checkpoint = read_checkpoint(folder)
    assert find_export(checkpoint, exporter, "bf16", None) is None
    made = ensure_export(checkpoint, exporter, "bf16", None)
    assert made == folder / exporter.engine / "bf16"
    when = times(made)
    assert ensure_export(checkpoint, exporter, "bf16", None) == made
    assert times(made) == when
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in made.iterdir())
    weights = (folder / "pytorch_model.bin").stat().st_size
    assert sum(file.stat().st_size for file in made.iterdir()) < 0.6 * weights


def test_an_export_of_other_weights_is_remade(folder, exporter):
    when = times(ensure_export(read_checkpoint(folder), exporter, "bf16", None))
    torch.save({"weight": torch.ones(1, 64), "bias": torch.zeros(1)}, folder / "sparse_linear.pt")
    assert find_export(read_checkpoint(folder), exporter, "bf16", None) is None
    assert times(ensure_export(read_checkpoint(folder), exporter, "bf16", None)) > when


@pytest.mark.parametrize("change", [{"openvino": "2020.1"}, {"format": 0}, {"precision": "fp32"}])
def test_an_export_of_another_version_is_remade(folder, exporter, change):
    checkpoint = read_checkpoint(folder)
    made = ensure_export(checkpoint, exporter, "bf16", None)
    notes = made / "export.json"
    content = json.loads(notes.read_text())
    content["identity"] |= change
    notes.write_text(json.dumps(content))
    when = times(made)
    assert times(ensure_export(checkpoint, exporter, "bf16", None)) > when


@pytest.mark.parametrize("damaged", ["its own", "export.json"])
def test_an_export_that_lacks_a_file_or_a_part_of_one_is_remade(folder, given, damaged):
    exporter, own = given
    checkpoint = read_checkpoint(folder)
    file = ensure_export(checkpoint, exporter, "bf16", None) / (own if damaged == "its own" else damaged)
    before = file.read_bytes()
    for damage in (file.unlink, lambda: file.write_bytes(before[:-2])):
        damage()
        ensure_export(checkpoint, exporter, "bf16", None)
        assert json.loads((file.parent / "export.json").read_text())["files"]
        # Names in a remade graph have higher numbers, so its size may differ.
        assert find_export(checkpoint, exporter, "bf16", None) == file.parent
        assert file.stat().st_size > 0.9 * len(before)


@pytest.mark.parametrize(
    "notes",
    [
        '{"identity": ' + 100_000 * "[",
        "[]",
        "\xff",
        {"files": None},
        {"files": {}},
        {"files": ["a"]},
        {"files": {"a\0b": 1}},
        {"files": {300 * "a": 1}},
    ],
    ids=lambda notes: str(notes)[:20],
)
def test_an_export_whose_notes_say_nothing_is_remade(folder, notes):
    checkpoint, exporter = read_checkpoint(folder), NativeExporter()
    made = ensure_export(checkpoint, exporter, "bf16", None)
    file = made / "export.json"
    if isinstance(notes, dict):
        notes = json.dumps(json.loads(file.read_text()) | notes)
    file.write_text(notes, encoding="latin-1")
    assert find_export(checkpoint, exporter, "bf16", None) is None
    assert ensure_export(checkpoint, exporter, "bf16", None) == made
    assert find_export(checkpoint, exporter, "bf16", None) == made


def test_an_export_cut_off_half_way_leaves_nothing_under_its_name(folder, exporter, monkeypatch):
    def cut_off(checkpoint, weights, stored, to):
        (to / "half").write_text("half a graph")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporter, "write", cut_off)
    with pytest.raises(
        ModelError, match=r"cannot be written to .* MiB are free there: No space left on device"
    ):
        ensure_export(read_checkpoint(folder), exporter, "bf16", None)
    assert [file.name for file in (folder / exporter.engine).iterdir()] == [".lock"]
    monkeypatch.undo()
    assert ensure_export(read_checkpoint(folder), exporter, "bf16", None).is_dir()


def test_what_openvino_cannot_write_is_said_with_its_words(folder, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no\nluck")

    monkeypatch.setattr(openvino_export.ov, "save_model", fail)
    with pytest.raises(ModelError, match="OpenVINO could not write it: no luck"):
        ensure_export(read_checkpoint(folder), OPENVINO, "fp32", None)


def test_a_damaged_graph_is_one_sentence(folder):
    graph = ensure_export(read_checkpoint(folder), OPENVINO, "fp32", None) / "encoder.xml"
    graph.write_bytes(b"<" * graph.stat().st_size)
    with pytest.raises(ModelError, match=r"OpenVINO cannot load .*encoder.xml"):
        Encoder(EncoderSettings(path=folder, engine="openvino", precision="fp32")).load()


def test_a_damaged_array_is_one_sentence(folder):
    array = ensure_export(read_checkpoint(folder), NativeExporter(), "fp32", None) / "grown.lines.npy"
    array.write_bytes(b"<" * array.stat().st_size)
    with pytest.raises(ModelError, match=r"grown.lines.npy cannot be read .* remove .*native/fp32"):
        Encoder(EncoderSettings(path=folder, engine="native", precision="fp32")).load()


def test_a_damaged_arrays_header_is_one_sentence(folder):
    """It makes numpy raise something other than ValueError."""
    array = ensure_export(read_checkpoint(folder), NativeExporter(), "fp32", None) / "grown.lines.npy"
    array.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '<f4".ljust(array.stat().st_size))
    with pytest.raises(ModelError, match=r"grown.lines.npy cannot be read .* remove .*native/fp32"):
        Encoder(EncoderSettings(path=folder, engine="native", precision="fp32")).load()


def test_damaged_states_to_measure_with_are_one_sentence(folder, exporter):
    checkpoint = read_checkpoint(folder)
    made = ensure_export(checkpoint, exporter, "int8", None)
    states = made / "held_out.npy"
    states.write_bytes(b"<" * states.stat().st_size)
    with pytest.raises(ModelError, match=rf"held_out.npy cannot be read .* remove {made}, "):
        prepare(checkpoint, exporter.engine, "int8", Place(threads=2))


MEASURED = {"texts": 100, "cosine_mean": 0.9997, "cosine_min": 0.999, "top10_overlap": 0.97}
COMPARED = {"times_as_fast": 1.5, "than": "bf16"}


@pytest.mark.parametrize(
    ("content", "known"),
    [
        (MEASURED, MEASURED),
        (MEASURED | COMPARED, MEASURED | COMPARED),
        (MEASURED | {"note": "mine"}, MEASURED),
        (MEASURED | COMPARED | {"than": None}, MEASURED),
        (MEASURED | {"times_as_fast": 1.5}, MEASURED),
        (MEASURED | {"top10_overlap": "0.97"}, {}),
        (MEASURED | {"cosine_min": None}, {}),
        (MEASURED | {"texts": [100]}, {}),
        ({"texts": 100}, {}),
        ([], {}),
        ("", {}),
    ],
    ids=str,
)
def test_what_was_measured_is_known_where_it_is_whole(tmp_path, content, known):
    (tmp_path / "measured.json").write_text(json.dumps({"int8 on this": content}))
    assert quality(tmp_path, "this", "int8") == known


@pytest.mark.parametrize("content", ["", "[]", "{" * 9, '{"int8 on this": ' + 100_000 * "["])
def test_nothing_is_known_of_what_cannot_be_read(tmp_path, content):
    (tmp_path / "measured.json").write_text(content)
    assert quality(tmp_path, "this", "int8") == {}


def test_a_read_only_model_is_exported_to_the_cache(folder, exporter, tmp_path, monkeypatch):
    checkpoint = read_checkpoint(folder)
    real = Path.mkdir

    def mkdir(self, *args, **kwargs):
        if self.is_relative_to(folder):
            raise OSError(30, "Read-only file system")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(ModelError, match="set EMBED_CACHE_DIR"):
        ensure_export(checkpoint, exporter, "bf16", None)
    made = ensure_export(checkpoint, exporter, "bf16", tmp_path / "cache")
    assert made.is_relative_to(tmp_path / "cache")
    assert find_export(checkpoint, exporter, "bf16", tmp_path / "cache") == made


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
        "from app.engine.native.export import NativeExporter;"
        "made = ensure_export(read_checkpoint(Path(sys.argv[1])), NativeExporter(), 'bf16', None);"
        "print((made / 'export.json').stat().st_mtime_ns)"
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
    ensure_export(read_checkpoint(folder), OPENVINO, "bf16", None)
    assert {file.name for file in place.iterdir()} == {".lock", "bf16", others.name}


def test_who_waits_for_anothers_export_says_so(folder, caplog):
    (folder / "openvino").mkdir()
    caplog.set_level("INFO")
    with ThreadPoolExecutor(1) as pool:
        with (folder / "openvino" / ".lock").open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            graph = pool.submit(ensure_export, read_checkpoint(folder), OPENVINO, "bf16", None)
            wait_for(lambda: "waiting for it" in caplog.text)
            assert not graph.done()
        assert graph.result(60).is_dir()


def cosines(a, b):
    return (a * b).sum(axis=1)


@pytest.mark.slow
def test_fp32_is_fp32(vectors):
    exact, found = vectors(engine="torch"), vectors(precision="fp32")
    assert cosines(exact, found).min() >= 0.999999


def test_bf16_is_close(vectors):
    if resolve_precision("auto", "auto", cpu_features())[0] != "bf16":
        pytest.skip("the processor does not support bf16 in hardware")
    exact, found = vectors(precision="fp32"), vectors(precision="bf16")
    assert cosines(exact, found).min() >= 0.9997


def test_int8_is_measured_and_within_its_promise(vectors, demo_folder):
    """The promise is about real weights on held-out text, and so is the record next to the export."""
    exact, found = vectors(precision="fp32"), vectors(precision="int8")
    assert cosines(exact, found).mean() >= 0.9996
    assert cosines(exact, found).min() >= 0.9990
    export = find_export(read_checkpoint(demo_folder), NativeExporter(), "int8", None)
    told = quality(export, kind_of(cpu_features()), "int8")
    assert told["texts"] == len(HELD_OUT) == 100
    assert told["cosine_mean"] == pytest.approx(cosines(exact, found).mean(), abs=1e-4)
    assert told["top10_overlap"] >= 0.965


@pytest.mark.slow
def test_openvinos_int8_is_measured_too(vectors, demo_folder):
    """Without VNNI it adds products in 16 bits, which overflow; its promise depends on that."""
    exact, found = vectors(precision="fp32"), vectors(engine="openvino", precision="int8")
    exact_sums = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"} & cpu_features()
    assert cosines(exact, found).mean() >= (0.9995 if exact_sums else 0.999)
    export = find_export(read_checkpoint(demo_folder), OPENVINO, "int8", None)
    told = quality(export, kind_of(cpu_features()), "int8")
    assert told["cosine_mean"] == pytest.approx(cosines(exact, found).mean(), abs=1e-4)


def test_what_int8_would_give_is_measured_beside_auto(folder, caplog):
    caplog.set_level("INFO")
    checkpoint, place = read_checkpoint(folder), Place(threads=2)
    assert known_of_int8(checkpoint, "auto", place) == {}
    found = compare(checkpoint, "auto", place)
    assert found["times_as_fast"] > 0
    assert found["than"] == resolve_precision("auto", "auto", cpu_features())[0]
    assert known_of_int8(checkpoint, "auto", place) == found
    encoder = Encoder(EncoderSettings(path=folder))
    encoder.load()
    assert encoder.info.int8 == found
    encoder.close()
    assert f"int8 is {found['times_as_fast']:.1f} times as fast as {found['than']} here" in caplog.text


def test_an_export_says_how_far_it_is(folder, exporter, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "app")
    monkeypatch.setattr("app.engine.export.TOLD_SECONDS", 0.0)
    ensure_export(read_checkpoint(folder), exporter, "int8", None)
    told = [record.getMessage() for record in caplog.records]
    assert "once: this may take minutes" in told[0]
    assert told[1:3] == ["exporting: 1 of 2 layers are done", "exporting: 2 of 2 layers are done"]
    assert told[-1].startswith("exported ")


def test_what_cannot_be_measured_is_not_compared(folder, monkeypatch):
    """A read-only export from another kind of processor: half a measurement is not reported."""
    checkpoint, place = read_checkpoint(folder), Place(threads=2)
    for precision in ("int8", "auto"):
        prepare(checkpoint, "auto", precision, place)
    find_export(checkpoint, NativeExporter(), "int8", None).joinpath("measured.json").unlink()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert compare(checkpoint, "auto", place) == {}


AVX2, AVX512 = frozenset({"avx2", "fma"}), frozenset({"avx2", "fma", "avx512f", "avx512_vnni"})


@pytest.mark.parametrize(
    ("features", "asked", "precision", "engine"),
    [
        (AVX512 | {"avx512_bf16", "amx_bf16"}, "auto", "bf16", "openvino"),
        (AVX512 | {"avx512_bf16"}, "auto", "bf16", "native"),
        (AVX512, "auto", "w8a16", "native"),
        (AVX2, "auto", "fp32", "native"),
        (AVX2, "bf16", "fp32", "native"),
        (AVX2, "int8", "int8", "native"),
        (AVX512 | {"amx_int8"}, "int8", "int8", "native"),
        (frozenset({"sse2"}), "auto", "fp32", "openvino"),
        (frozenset({"asimd", "asimddp", "bf16"}), "auto", "bf16", "openvino"),
        (frozenset({"asimd", "asimddp"}), "int8", "int8", "openvino"),
    ],
)
def test_the_choice_by_processor_and_precision(features, asked, precision, engine):
    found, reason = resolve_precision("auto", asked, features)
    assert (found, candidates("auto", found, features)[0]) == (precision, engine)
    assert bool(reason) == (precision != asked)


NO_BF16 = "the processor does not support bf16 in hardware"


def test_what_auto_chooses_is_said():
    assert resolve_precision("auto", "auto", AVX2 | {"amx_bf16"}) == (
        "bf16",
        "the processor supports bf16 in hardware (amx_bf16)",
    )
    assert resolve_precision("auto", "auto", AVX2) == ("fp32", NO_BF16)
    assert "does not support it in hardware" in resolve_precision("auto", "bf16", AVX2)[1]
    assert resolve_precision("openvino", "auto", AVX512) == ("fp32", NO_BF16)


def test_an_engine_that_is_asked_for_keeps_its_own_bf16():
    assert resolve_precision("openvino", "auto", AVX512 | {"avx512_bf16"})[0] == "bf16"
    assert resolve_precision("openvino", "bf16", AVX512 | {"avx512_bf16"})[0] == "bf16"


def test_a_library_without_bf16_does_not_run_it(tiny_folder, monkeypatch):
    """A hypervisor may hide one of the extensions that the library for bf16 needs."""
    monkeypatch.setattr("app.engine.backends.cpu_features", lambda: AVX512 | {"avx512_bf16"})
    monkeypatch.setattr("app.engine.native.compiler.cpu_features", lambda: AVX2 & cpu_features())
    load_library.cache_clear()
    chosen = choose(read_checkpoint(tiny_folder), "auto", "auto", Place())
    load_library.cache_clear()
    assert (chosen.engine, chosen.precision) == ("openvino", "bf16")
    assert "does not support bf16" in chosen.better


def test_what_cannot_run_here_is_not_prepared(tiny_folder, monkeypatch):
    """The prepared export is the one that the first start would look for."""
    monkeypatch.setattr("app.engine.native.layout.fits", lambda checkpoint: False)
    checkpoint, place = read_checkpoint(tiny_folder), Place(threads=2)
    assert prepare(checkpoint, "auto", "fp32", place).folder.parent.name == "openvino"
    assert prepare(checkpoint, "torch", "auto", place).folder == checkpoint.path
    assert compare(checkpoint, "torch", place) == {}


def test_a_precision_that_no_engine_has_here_is_one_sentence():
    with pytest.raises(ModelError, match="no engine runs in w8a16 on this processor"):
        candidates("auto", "w8a16", frozenset({"asimd"}))


def test_the_torch_engine_runs_in_fp32_only(tiny_folder):
    with pytest.raises(ModelError, match="the torch engine runs in fp32, not in int8"):
        Encoder(EncoderSettings(path=tiny_folder, engine="torch", precision="int8")).load()


def test_an_engine_that_is_not_installed_is_one_sentence(tiny_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "app.engine.openvino_backend", None)
    with pytest.raises(ModelError, match="the openvino engine cannot run here"):
        Encoder(EncoderSettings(path=tiny_folder, engine="openvino")).load()


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


def test_several_batches_at_a_time_give_the_same_vectors(load_encoder, demo_folder, vectors):
    several = load_encoder(demo_folder, precision="fp32", throughput=True)
    calls = [HELD_OUT[start::4] for start in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda call: several.encode(call).dense, calls))
    for start, found in enumerate(together):
        assert cosines(found, vectors(precision="fp32")[start::4]).min() >= 0.999999


# Loads with several streams, and slows down the moment in which OpenVINO's bindings are initialised.
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
settings = EncoderSettings(Path(sys.argv[1]), threads=2, throughput=True, engine="openvino", precision="fp32")
Encoder(settings).load()
print("loaded", flush=True)
"""


def test_the_first_batches_of_several_streams_do_not_wait_for_each_other(tiny_folder):
    ensure_export(read_checkpoint(tiny_folder), OPENVINO, "fp32", None)  # making one calls the bindings
    done = subprocess.run(
        [sys.executable, "-c", LOAD_SLOWLY, tiny_folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == ["asked", "loaded"], done.stderr
