"""The native engine: integers are exact, kinds of processor agree, and a batch does not change a text."""

import ctypes
import json
import os
import shutil
import sys
import threading
import time

import numpy as np
import pytest

from app.engine.backends import Place, choose, load_backend
from app.engine.checkpoint import read_checkpoint
from app.engine.encoder import Encoder, EncoderSettings
from app.engine.errors import ModelError
from app.engine.heads import normalize
from app.engine.measure import quality
from app.engine.native import compiler
from app.engine.native.compiler import INSTRUCTIONS, Instructions, NoLibrary, build, compilers, load_library
from app.engine.native.export import NativeExporter
from app.engine.native.layout import KINDS, LINEAR_ARRAYS, REPEATED, Linear, panels
from app.engine.native.rounding import compensated_rounding, fits_sixteen_bits, repeated_columns
from app.engine.processor import cpu_features
from app.engine.texts import calibration_sequences
from tests.conftest import HELD_OUT, VOCABULARY

HERE = [found for found in INSTRUCTIONS if found.features <= cpu_features()]
pytestmark = pytest.mark.skipif(not HERE, reason="no x86 processor with AVX2")
each_kind = pytest.mark.parametrize("kind", HERE, ids=lambda kind: kind.name)

TEXTS = HELD_OUT[:30:2]


def address(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def multiply(kind, precision, planes, arrays, x):
    """One linear layer in C: x (m, k) -> (m, n)."""
    lines, bias = arrays["lines"], arrays["bias"]
    linear = Linear(
        *(arrays[name].ctypes.data if name in arrays else 0 for name in LINEAR_ARRAYS),
        x.shape[1],
        len(bias),
    )
    assert lines.flags.c_contiguous
    y = np.full((len(x) + 1, len(bias)), 7, np.float32)
    done = load_library(kind.name)[0].multiply(
        KINDS[precision], planes, ctypes.byref(linear), address(x), len(x), address(y), 2, 0
    )
    assert done == 0
    assert (y[-1] == 7).all(), "it wrote past the last row"
    return y[:-1]


def bounded_weights(chance, n, k):
    """Integers at the very limit that four products may not exceed."""
    weights = np.zeros((n, k // 8, 2, 2, 2), np.int8)  # run, word, group, member
    for sign in (1, -1):
        most = np.where(chance.random((n, k // 8, 1, 2, 1)) < 0.5, 1, 0)
        shares = chance.multinomial(128, [0.25] * 4, size=(n, k // 8, 2)).reshape(n, k // 8, 2, 2, 2)
        weights += (
            np.where(most == (sign > 0), sign * shares.swapaxes(2, 3), 0).clip(-127, 127).astype(np.int8)
        )
    return weights.reshape(n, k)


@each_kind
@pytest.mark.parametrize("k", [16, 64, 1024, 1040, 4096])
def test_integer_products_are_exact_for_any_number_of_rows(kind, k):
    chance = np.random.default_rng(k)
    n = 48
    weights = bounded_weights(chance, n, k + REPEATED)
    repeated = chance.integers(0, k, REPEATED).astype(np.int32)
    assert fits_sixteen_bits(weights)
    arrays = {
        "lines": panels(weights),
        "bias": np.zeros(n, np.float32),
        "scales": np.ones(n, np.float32),
        "sums": weights.sum(1, dtype=np.float32),
        "smooth": np.ones(k, np.float32),
        "repeated": repeated,
    }
    for m in (*range(1, 71), 97, 200):
        x = chance.integers(0, 256, (m, k)).astype(np.float32)
        x[:, 0], x[:, -1] = 0, 255  # so that the scale is 1 and bytes stay as they are
        x[chance.random(m) < 0.2, 1:] = 255
        with_repeated = np.concatenate([x, x[:, repeated]], axis=1).astype(float)
        expected = with_repeated @ weights.T.astype(float)  # integers, exact in 53 bits
        np.testing.assert_array_equal(multiply(kind, "w8", 1, arrays, x), expected.astype(np.float32))
    x = chance.integers(0, 65536, (9, k)).astype(np.float32)
    x[:, 0], x[:, -1] = 0, 65535
    whole = np.concatenate([x, x[:, repeated]], axis=1).astype(float) @ weights.T.astype(float)
    np.testing.assert_allclose(
        multiply(kind, "w8", 2, arrays, x), whole, rtol=1e-6, atol=np.abs(whole).max() * 1e-6
    )


@each_kind
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_products_of_floats_are_those_of_numpy(kind, precision):
    if precision == "bf16" and not kind.bf16:
        pytest.skip("the processor does not multiply bf16")
    chance = np.random.default_rng(0)
    from app.engine.smoothing import to_bf16

    for n, k in ((16, 16), (48, 64), (64, 1040)):
        matrix = chance.normal(size=(n, k)).astype(np.float32)
        lines = panels(matrix if precision == "fp32" else to_bf16(matrix))
        arrays = {"lines": lines, "bias": chance.normal(size=n).astype(np.float32)}
        for m in (*range(1, 40), 70, 193):
            x = chance.normal(size=(m, k)).astype(np.float32)
            expected = x @ matrix.T + arrays["bias"]
            found = multiply(kind, precision, 1, arrays, x)
            off = {"fp32": 1e-5, "bf16": 2e-2}[precision] * np.sqrt(k)
            np.testing.assert_allclose(found, expected, atol=off)
            alone = np.concatenate([multiply(kind, precision, 1, arrays, row[None]) for row in x[:5]])
            np.testing.assert_array_equal(found[:5], alone)


@pytest.fixture(scope="session")
def wide_folder(tmp_path_factory, small_tokenizer):
    """One layer as wide as BGE-M3's, with random weights."""
    from benchmarks.checkpoint import SHAPE, make_checkpoint

    folder = tmp_path_factory.mktemp("models") / "wide"
    shape = SHAPE | {"num_hidden_layers": 1, "vocab_size": VOCABULARY}
    make_checkpoint(folder, small_tokenizer, shape=shape)
    return folder


PRECISIONS = ("int8", "w8a16", "fp32")


@pytest.mark.parametrize(
    ("model", "precision"),
    [
        ("shallow_with_heads", "int8"),
        *(
            pytest.param("shallow_with_heads", one, marks=pytest.mark.slow)
            for one in PRECISIONS
            if one != "int8"
        ),
        ("wide_folder", "fp32"),
        *(pytest.param("wide_folder", precision, marks=pytest.mark.slow) for precision in PRECISIONS[:2]),
        *(pytest.param("demo_with_heads", precision, marks=pytest.mark.slow) for precision in PRECISIONS),
    ],
)
def test_a_text_is_the_same_alone_in_a_batch_first_or_last(load_encoder, request, model, precision):
    encoder = load_encoder(request.getfixturevalue(model), precision=precision)
    outputs = ("dense", "sparse", "colbert")
    together = encoder.encode(TEXTS, outputs=outputs)
    backwards = encoder.encode(TEXTS[::-1], outputs=outputs)
    for index, text in enumerate(TEXTS):
        alone = encoder.encode([text], outputs=outputs)
        for found, at in ((together, index), (backwards, len(TEXTS) - 1 - index)):
            np.testing.assert_allclose(found.dense[at], alone.dense[0], rtol=0, atol=1e-6)
            np.testing.assert_allclose(found.multi_vector[at], alone.multi_vector[0], rtol=0, atol=1e-6)
            np.testing.assert_array_equal(found.sparse[at][0], alone.sparse[0][0])
            np.testing.assert_allclose(found.sparse[at][1], alone.sparse[0][1], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "precision",
    ["fp32", "int8", *(pytest.param(one, marks=pytest.mark.slow) for one in PRECISIONS if one == "w8a16")],
)
def test_every_kind_of_processor_gives_the_same_vectors(demo_folder, precision):
    checkpoint = read_checkpoint(demo_folder)
    sequences = calibration_sequences(checkpoint, held_out=True)[:40]
    found = {}
    for kind in HERE:
        backend = load_backend(checkpoint, "native", precision, Place(threads=2, instructions=kind.name))
        found[kind.name] = normalize(np.stack([backend.forward([s], [(0, "mean")])[0] for s in sequences]))
    first = found.popitem()[1]
    for name, vectors in found.items():
        assert (vectors * first).sum(axis=1).min() >= 0.99999, name
        np.testing.assert_allclose(vectors, first, rtol=0, atol=1e-6, err_msg=name)


PROMISED = {"int8": (0.9996, 0.9990, 0.965), "w8a16": (0.9999, 0.9998, 0.98)}


@pytest.mark.parametrize("precision", PROMISED)
def test_8_bit_weights_are_true_to_the_model(vectors, precision):
    """On this kind of processor; the test above shows that the others give the same."""
    rows = [vectors(engine="torch"), vectors(precision=precision)]
    cosine = (rows[0] * rows[1]).sum(axis=1)
    near = []
    for vectors in rows:
        similarity = vectors @ vectors.T
        np.fill_diagonal(similarity, -2)
        near.append(np.argsort(-similarity, axis=1)[:, :10])
    kept = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*near, strict=True)])
    print(f"{precision}: cosine {cosine.mean():.5f}, least {cosine.min():.5f}, kept {kept:.1%}")
    mean, least, neighbours = PROMISED[precision]
    assert cosine.mean() >= mean
    assert cosine.min() >= least
    assert kept >= neighbours


def test_rounding_keeps_within_sixteen_bits_whatever_the_weights():
    chance = np.random.default_rng(0)
    seen = chance.normal(size=(300, 64)).astype(np.float32)
    for matrix in (
        chance.normal(size=(32, 64)),
        np.ones((32, 64)),
        chance.standard_t(2, size=(32, 64)),
        np.zeros((32, 64)),
    ):
        matrix = matrix.astype(np.float32)
        weights, scales = compensated_rounding(matrix, seen.T @ seen / len(seen))
        assert fits_sixteen_bits(weights)
        off = seen @ (matrix - weights * scales[:, None]).T
        assert np.square(off).mean() <= 1e-3 * max(np.square(seen @ matrix.T).mean(), 1e-9)


def test_compensation_beats_rounding_to_nearest():
    """The idea of GPTQ: errors of correlated columns compensate each other."""
    chance = np.random.default_rng(0)
    seen = (chance.normal(size=(500, 16)) @ chance.normal(size=(16, 128))).astype(np.float32)
    matrix = chance.normal(size=(64, 128)).astype(np.float32)
    weights, scales = compensated_rounding(matrix, seen.T @ seen / len(seen))
    nearest = np.rint(matrix / scales[:, None]) * scales[:, None]
    ours, theirs = (
        np.square(seen @ (matrix - found).T).mean() for found in (weights * scales[:, None], nearest)
    )
    assert ours < 0.5 * theirs


def test_a_column_with_large_weights_does_not_coarsen_the_others():
    """It stands several times, each time with a part of its weights."""
    chance = np.random.default_rng(0)
    seen = chance.normal(size=(500, 64)).astype(np.float32)
    matrix = chance.normal(size=(32, 64)).astype(np.float32)
    matrix[:, (5, 40)] *= 20, 10
    repeated = repeated_columns(matrix, 16)
    assert sorted(set(repeated)) == [5, 40]
    columns = np.concatenate([np.arange(64), repeated])
    off = []
    for chosen in (columns, np.arange(64)):
        parts = (matrix / np.bincount(chosen))[:, chosen].astype(np.float32)
        inputs = seen[:, chosen]
        np.testing.assert_allclose(inputs @ parts.T, seen @ matrix.T, atol=1e-3)
        weights, scales = compensated_rounding(parts, inputs.T @ inputs / len(inputs))
        off.append(np.square(inputs @ (parts - weights * scales[:, None]).T).mean())
    assert off[0] < 0.2 * off[1]


def test_an_export_from_another_kind_of_processor_is_measured_again_once(broken_folder, caplog):
    caplog.set_level("INFO")
    checkpoint, place = read_checkpoint(broken_folder), Place(threads=2)
    shutil.rmtree(broken_folder / "native", ignore_errors=True)
    load_backend(checkpoint, "native", "int8", place)
    assert caplog.text.count("measuring int8 on a processor") == 1
    notes = broken_folder / "native" / "w8" / "measured.json"
    notes.write_text(json.dumps({"int8 on another": next(iter(json.loads(notes.read_text()).values()))}))
    caplog.clear()
    for _ in range(2):
        load_backend(checkpoint, "native", "int8", place)
    assert caplog.text.count("measuring int8 on a processor") == 1
    assert len(json.loads(notes.read_text())) == 2


def test_what_cannot_be_noted_is_not_measured_at_every_start(broken_folder, monkeypatch, caplog):
    caplog.set_level("INFO")
    checkpoint, place = read_checkpoint(broken_folder), Place(threads=2)
    load_backend(checkpoint, "native", "int8", place)
    (broken_folder / "native" / "w8" / "measured.json").unlink()
    caplog.clear()
    monkeypatch.setattr(os, "access", lambda *_: False)
    load_backend(checkpoint, "native", "int8", place)
    assert "read-only: int8 is not measured" in caplog.text


NOTHING = ["", "[]", "null", '{"int8 on avx2": null}', '{"int8 on avx2": {"texts": 1}}']


@pytest.mark.parametrize("notes", NOTHING)
def test_notes_that_say_nothing_are_no_measurement(tmp_path, notes):
    (tmp_path / "measured.json").write_text(notes)
    assert quality(tmp_path, "avx2", "int8") == {}


@pytest.mark.parametrize("precision", ["fp32", "int8", "w8a16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_not_finite_shows_in_its_own_text_and_in_no_other(tiny_folder, precision, bad):
    checkpoint = read_checkpoint(tiny_folder)
    for kind in HERE:
        backend = load_backend(checkpoint, "native", precision, Place(threads=2, instructions=kind.name))
        words = np.array(backend._arrays["words"])
        words[9, 3] = bad
        backend._arrays._arrays["words"] = words
        one, other = backend.states([np.arange(5, 25), np.full(7, 100)])
        assert np.isnan(one).any(axis=1).all(), kind.name
        assert np.isfinite(other).all(), kind.name


def test_a_bias_that_is_not_finite_shows_in_every_precision(tiny_folder):
    checkpoint = read_checkpoint(tiny_folder)
    for kind in HERE:
        for precision in ("fp32", "int8", "w8a16"):
            place = Place(threads=2, instructions=kind.name)
            backend = load_backend(checkpoint, "native", precision, place)
            backend._arrays["grown.bias"][0, 3] = np.nan
            [states] = backend.states([np.arange(5, 25)])
            assert np.isnan(states).any(axis=1).all(), (kind.name, precision)


def test_a_feed_forward_part_narrower_than_the_model(tmp_path, small_tokenizer):
    """BERT allows it, and the buffer for its numbers is used for attention too."""
    from benchmarks.checkpoint import SHAPE, make_checkpoint

    small = {"hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    make_checkpoint(tmp_path / "narrow", small_tokenizer, shape=SHAPE | small | {"vocab_size": VOCABULARY})
    checkpoint = read_checkpoint(tmp_path / "narrow")
    sequences = [np.arange(5, 5 + length) for length in (3, 40, 300)]
    wanted = [(index, "mean") for index in range(3)]
    torch, native = (
        np.stack(load_backend(checkpoint, engine, "fp32", Place(threads=2)).forward(sequences, wanted))
        for engine in ("torch", "native")
    )
    np.testing.assert_allclose(native, torch, atol=1e-5)


def test_without_a_compiler_the_next_engine_runs_and_the_log_says_so(tiny_folder, monkeypatch, caplog):
    def none(*_):
        raise NoLibrary("there is no C compiler")

    monkeypatch.setattr(compiler, "load_library", none)
    encoder = Encoder(EncoderSettings(path=tiny_folder, precision="fp32"))
    encoder.load()
    assert encoder.info.engine == "openvino"
    assert (
        "the native engine cannot run here: there is no C compiler; the openvino engine runs instead, in fp32"
        in caplog.text
    )
    encoder.close()
    with pytest.raises(ModelError, match="there is no C compiler"):
        Encoder(EncoderSettings(path=tiny_folder, engine="native", precision="fp32")).load()


BROKEN = [sys.executable, "-c", "import sys; sys.exit('no luck')"]


def test_a_compiler_that_fails_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "compilers", lambda: [BROKEN])
    with pytest.raises(NoLibrary, match=r"failed: no luck$"):
        build(HERE[-1], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_image_for_arm_builds_without_the_library(monkeypatch, capsys):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr(compiler, "build", lambda wanted: pytest.fail("it compiles"))
    compiler.main()
    assert "nothing to compile" in capsys.readouterr().out


def test_on_arm_auto_takes_openvino_and_compiles_nothing(tiny_folder, monkeypatch):
    arm = frozenset({"fp", "asimd", "asimdhp", "asimddp"})
    for module in ("backends", "native.compiler"):
        monkeypatch.setattr(f"app.engine.{module}.cpu_features", lambda: arm)
    monkeypatch.setattr(compiler, "build", lambda *_: pytest.fail("it compiles"))
    chosen = choose(read_checkpoint(tiny_folder), "auto", "auto", Place())
    assert (chosen.engine, chosen.precision, chosen.better) == ("openvino", "fp32", "")
    load_library.cache_clear()
    with pytest.raises(ModelError, match="the native engine cannot run here: the processor has no AVX2"):
        choose(read_checkpoint(tiny_folder), "native", "auto", Place())
    load_library.cache_clear()


def test_after_a_compiler_that_fails_comes_the_next(tmp_path, monkeypatch):
    works = list(compilers())
    monkeypatch.setattr(compiler, "compilers", lambda: [BROKEN, *works])
    assert build(HERE[-1], tmp_path).is_file()


def test_instructions_that_the_compiler_does_not_know_are_done_without(monkeypatch):
    unknown = Instructions("newest", HERE[-1].features | {"avx1024"})
    monkeypatch.setattr(compiler, "INSTRUCTIONS", (unknown, *HERE))
    monkeypatch.setattr(compiler, "cpu_features", lambda: cpu_features() | {"avx1024"})
    load_library.cache_clear()
    assert load_library()[1] == HERE[0]
    load_library.cache_clear()


def test_without_a_systems_compiler_the_wheels_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "ziglang")
    assert list(compilers()) == [[sys.executable, "-m", "ziglang", "cc"]]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NoLibrary, match="pip install ziglang"):
        build(HERE[-1], tmp_path)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A cache for libraries, for when the package's folder cannot be written."""
    monkeypatch.setattr(compiler, "BUILT", tmp_path / "file" / "lib")
    (tmp_path / "file").touch()  # so that nobody can make the folder, not even root
    load_library.cache_clear()
    yield tmp_path / "cache"
    load_library.cache_clear()


def test_a_library_nobody_may_write_is_compiled_elsewhere(elsewhere):
    load_library("", elsewhere)
    assert [file.suffix for file in (elsewhere / "native").iterdir()] == [".so"]


@pytest.mark.slow
def test_what_is_no_library_for_this_system_is_made_anew(elsewhere):
    whole = build(HERE[0], elsewhere / "other")
    (elsewhere / "native").mkdir()
    file = elsewhere / "native" / whole.name
    file.write_bytes(b"of another system")
    load_library("", elsewhere)
    assert file.stat().st_size == whole.stat().st_size


def test_a_library_that_others_may_have_put_there_is_not_loaded(elsewhere):
    load_library("", elsewhere)
    [file] = (elsewhere / "native").iterdir()
    made = file.stat().st_mtime_ns
    (elsewhere / "native").chmod(0o777)
    load_library.cache_clear()
    load_library("", elsewhere)
    assert file.stat().st_mtime_ns != made


def test_a_processor_without_avx2_runs_fp32_in_another_engine(tiny_folder, monkeypatch):
    monkeypatch.setattr("app.engine.backends.cpu_features", lambda: frozenset({"sse2"}))
    encoder = Encoder(EncoderSettings(path=tiny_folder))
    encoder.load()
    assert (encoder.info.engine, encoder.info.precision) == ("openvino", "fp32")
    encoder.close()


def test_sizes_that_are_no_multiples_of_16_run_in_another_engine(broken_folder, monkeypatch, caplog):
    monkeypatch.setattr("app.engine.native.layout.fits", lambda checkpoint: False)
    encoder = Encoder(EncoderSettings(path=broken_folder, precision="fp32"))
    encoder.load()
    assert encoder.info.engine == "openvino"
    assert "not multiples of 16" in caplog.text
    encoder.close()


def test_no_memory_for_a_batch_is_an_error_and_not_the_end(load_encoder, tiny_folder, monkeypatch):
    checkpoint = read_checkpoint(tiny_folder)
    backend = load_backend(checkpoint, "native", "fp32", Place(threads=2))
    real = backend._library

    class Full:
        @staticmethod
        def forward(*_):
            return -1

    monkeypatch.setattr(backend, "_library", Full)
    with pytest.raises(MemoryError, match="a batch of 5 tokens"):
        backend.forward([np.full(5, 9)], [(0, "mean")])
    monkeypatch.setattr(backend, "_library", real)
    assert len(backend.forward([np.full(5, 9)], [(0, "mean")])[0]) == 64


def test_more_threads_than_processors_give_the_same(tiny_folder):
    checkpoint = read_checkpoint(tiny_folder)
    sequences = [np.arange(5, 5 + length) for length in (1, 2, 17, 130, 300)]
    rows = [
        load_backend(checkpoint, "native", "fp32", Place(threads=threads)).states(sequences)
        for threads in (1, 4 * (os.cpu_count() or 1))
    ]
    for one, other in zip(*rows, strict=True):
        np.testing.assert_array_equal(one, other)


def test_int8_and_w8a16_share_an_export(tiny_folder):
    exporter = NativeExporter()
    assert exporter.stored("int8") == exporter.stored("w8a16")


def begun(call, *arguments):
    """Start a call in a thread; returns the thread and the list that gets the result."""
    found = []
    thread = threading.Thread(target=lambda: found.append(call(*arguments)))
    thread.start()
    return thread, found


def test_a_forward_stops_for_one_that_goes_first_and_both_are_right(tiny_folder):
    """A batch of documents gives way between its tasks, so a question can be answered meanwhile."""
    checkpoint = read_checkpoint(tiny_folder)
    documents, question = [np.arange(5, 2005)] * 6, [np.arange(5, 25)]
    wanted = [(index, "mean") for index in range(len(documents))]
    for kind in HERE:
        for precision in ("fp32", "int8"):
            place = Place(threads=2, instructions=kind.name)
            backend = load_backend(checkpoint, "native", precision, place)
            alone, [answer] = backend.forward(documents, wanted), backend.preempt(question, [(0, "mean")])
            under_way, found = begun(backend.forward, documents, wanted)
            asked = 0
            while under_way.is_alive():
                assert (backend.preempt(question, [(0, "mean")])[0] == answer).all()
                asked += under_way.is_alive()
            assert asked > 2, f"{kind.name}: only {asked} questions while the batch took its time"
            assert (np.stack(found[0]) == np.stack(alone)).all(), (kind.name, precision)


def test_nothing_moves_while_another_goes_first(tiny_folder):
    backend = load_backend(read_checkpoint(tiny_folder), "native", "fp32", Place(threads=2))
    documents, question = [np.arange(5, 8005) % 9000] * 2, [np.arange(5, 25)]
    start = time.perf_counter()
    backend.preempt(documents, [(0, "mean")])
    seconds = time.perf_counter() - start
    first, _ = begun(backend.preempt, documents, [(0, "mean")])
    time.sleep(seconds / 4)
    assert first.is_alive()
    backend.forward(question, [(0, "mean")])  # alone it takes a thousandth of that
    first.join(0.05)
    assert not first.is_alive(), "a short forward overtook the one that goes first"


@pytest.mark.parametrize(
    "precision", ["fp32", "int8", "w8a16", *(["bf16"] if "avx512_bf16" in cpu_features() else [])]
)
def test_where_first_tokens_are_all_that_is_wanted_they_are_the_same(tiny_folder, precision):
    """Then the last layer leaves out all other tokens."""
    backend = load_backend(read_checkpoint(tiny_folder), "native", precision, Place(threads=2))
    chance = np.random.default_rng(1)
    sequences = [chance.integers(4, 900, length) for length in (7, 1, 40, 2, 300, 16, 1)]
    firsts = [(index, "cls") for index in range(len(sequences))]
    expected = backend.forward(sequences, [*firsts, (0, "sparse")])[:-1]
    for found, exact in zip(backend.forward(sequences, firsts), expected, strict=True):
        np.testing.assert_array_equal(found, exact)
    for found, exact in zip(backend.preempt(sequences, firsts), expected, strict=True):
        np.testing.assert_array_equal(found, exact)
