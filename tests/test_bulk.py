"""`flask embed` on this machine: from every format it makes the same vectors as the encoder."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app import create_app
from app.config import Settings
from app.engine.checkpoint import read_checkpoint
from app.engine.export import ensure_export
from app.engine.native.export import NativeExporter
from app.engine.token_pooling import pool

ROOT = Path(__file__).parent.parent
TEXTS = [
    "什么是机器学习？",
    "What is machine learning?",
    "Wie wird das Wetter morgen?",
    "a b c " * 40,
    "x",
] * 5


def read(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(part) for part in sorted(folder.glob("part-*.parquet")))


def dense(table: pa.Table) -> np.ndarray:
    return np.array(table.column("dense").to_pylist())


def write_jsonl(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def sources(folder: Path) -> dict[str, str]:
    """The same texts in every format."""
    table = pa.table({"n": range(len(TEXTS)), "text": TEXTS})
    pq.write_table(table, folder / "a.parquet", row_group_size=7)
    rows = [{"n": n, "text": text} for n, text in enumerate(TEXTS)]
    write_jsonl(folder / "a.jsonl", rows)
    (folder / "a.jsonl.gz").write_bytes(gzip.compress((folder / "a.jsonl").read_bytes()))
    (folder / "a.csv").write_text(
        "\ufeffn,text\n" + "".join(f'{n},"{text}"\n' for n, text in enumerate(TEXTS))
    )
    (folder / "texts").mkdir()
    for n, text in enumerate(TEXTS):
        (folder / "texts" / f"{n:02}.txt").write_text(text)
    for name in (".notes", "_notes"):
        (folder / "texts" / name).mkdir()
        (folder / "texts" / name / "a.txt").write_text("none of the texts")
    names = ("a.parquet", "a.jsonl", "a.jsonl.gz", "a.csv", "texts", "texts/**/*.txt")
    return {name: str(folder / name) for name in names}


def test_every_format_gives_the_encoders_own_vectors(run, tmp_path, reference):
    expected = reference.encode(TEXTS).dense
    for number, (name, place) in enumerate(sources(tmp_path).items()):
        out = tmp_path / f"out{number}"
        done = run(place, "--out", out, "--part-rows", 7)
        assert done.exit_code == 0, (name, done.output)
        table = read(out)
        assert table.column("text").to_pylist() == TEXTS, name
        np.testing.assert_allclose(dense(table), expected, atol=1e-6, err_msg=name)
        assert len(list(out.glob("part-*.parquet"))) == 4
        if "texts" in name:
            assert table.column("path")[1].as_py() == "01.txt"
        else:
            assert [int(n) for n in table.column("n").to_pylist()] == list(range(len(TEXTS)))


def test_standard_input_is_lines_or_json_lines(run, tmp_path, reference):
    expected = reference.encode(TEXTS[:3]).dense
    lines = "".join(f"{text}\n" for text in TEXTS[:3]).encode()
    rows = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:3]).encode()
    for name, stdin in (("lines", lines), ("jsonl", rows)):
        done = run("-", "--out", tmp_path / name, stdin=stdin)
        assert done.exit_code == 0, done.output
        np.testing.assert_allclose(dense(read(tmp_path / name)), expected, atol=1e-6)
        assert not list((tmp_path / name).glob("*stdin*"))
        assert run("-", "--out", tmp_path / name, stdin=stdin).exit_code == 0


def test_all_outputs_and_what_the_files_say_of_themselves(run, tmp_path, reference):
    place = sources(tmp_path)["a.parquet"]
    done = run(place, "--out", tmp_path / "out", "--outputs", "dense,sparse,colbert", "--pooling", "cls")
    assert done.exit_code == 0, done.output
    table = read(tmp_path / "out")
    expected = reference.encode(TEXTS, pooling="cls", outputs=("dense", "sparse", "colbert"))
    assert table.schema.field("dense").type == pa.list_(pa.float32(), 64)
    np.testing.assert_allclose(dense(table), expected.dense, atol=1e-6)
    for row, (ids, weights), vectors in zip(
        table.to_pylist(), expected.sparse, expected.multi_vector, strict=True
    ):
        assert row["sparse"]["indices"] == ids.tolist()
        np.testing.assert_allclose(row["sparse"]["values"], weights, atol=1e-6)
        np.testing.assert_allclose(row["colbert"], vectors, atol=1e-6)
    told = json.loads(
        pq.read_schema(tmp_path / "out" / "part-00000000-00000000.parquet").metadata[b"embedding"]
    )
    assert told["model"] == "tiny"
    assert (told["pooling"], told["precision"], told["width"]) == ("cls", "fp32", 64)
    assert len(told["model_version"]) == 64
    assert told["embedding_space"] == f"{told['model_version'][:12]}.cls.fp32.8192.1"
    assert told["outputs"] == ["dense", "sparse", "colbert"]


@pytest.mark.parametrize("encoding", ["float32", "binary"])
def test_multi_vectors_are_pooled(run, tmp_path, reference, encoding):
    place, out = sources(tmp_path)["a.jsonl"], tmp_path / "out"
    options = ("--outputs", "dense,colbert", "--encoding", encoding)
    done = run(place, "--out", out, *options, "--colbert-pool", 4)
    assert done.exit_code == 0, done.output
    table = read(out)
    expected = pool(reference.encode(TEXTS, outputs=("colbert",)).multi_vector, 4)
    found = table.column("colbert").to_pylist()
    assert [len(rows) for rows in found] == [len(rows) for rows in expected]
    if encoding == "float32":
        for rows, others in zip(found, expected, strict=True):
            np.testing.assert_allclose(rows, others, atol=1e-6)
    assert json.loads(pq.read_schema(next(out.glob("part-*"))).metadata[b"embedding"])["colbert_pool"] == 4
    again = run(place, "--out", out, *options)
    assert again.exit_code == 1
    assert "was begun with a different colbert pool (4, now None)" in again.output


def test_it_goes_on_in_the_same_embedding_space_only(run, tmp_path, tiny_folder):
    """A name for the model and an engine change no vectors; weights, pooling, precision and limit do."""
    place, out = sources(tmp_path)["a.jsonl"], tmp_path / "out"
    assert run(place, "--out", out).exit_code == 0
    parts = {part: part.stat().st_mtime_ns for part in out.glob("part-*")}
    again = run(place, "--out", out, engine="openvino", precision="fp32", model_name="another-name")
    assert again.exit_code == 0, again.output
    assert {part: part.stat().st_mtime_ns for part in out.glob("part-*")} == parts
    digest = read_checkpoint(tiny_folder).fingerprint[:12]
    for options, settings, other in (
        (("--pooling", "cls"), {}, "cls.fp32.8192.1"),
        ((), {"max_length": 64}, "mean.fp32.64.1"),
        ((), {"engine": "native", "precision": "int8"}, "mean.int8-native-"),
    ):
        done = run(place, "--out", out, *options, **settings)
        assert done.exit_code == 1
        named = f"a different embedding space ({digest}.mean.fp32.8192.1, now {digest}.{other}"
        assert named in done.output


@pytest.mark.parametrize(
    ("encoding", "kind", "width"),
    [("float16", "halffloat", 64), ("int8", "int8", 64), ("binary", "int8", 8), ("ubinary", "uint8", 8)],
)
def test_smaller_numbers(run, tmp_path, reference, encoding, kind, width):
    place = sources(tmp_path)["a.jsonl"]
    options = ("--outputs", "dense,colbert", "--encoding", encoding)
    assert run(place, "--out", tmp_path / "out", *options).exit_code == 0
    table = read(tmp_path / "out")
    vector = table.schema.field("dense").type
    assert (str(vector.value_type), vector.list_size) == (kind, width)
    assert table.schema.field("colbert").type.value_type.list_size == width
    expected = reference.encode(TEXTS).dense
    found = dense(table)
    if encoding == "ubinary":
        np.testing.assert_array_equal(found, np.packbits(expected > 0, axis=1))
    elif encoding == "binary":
        np.testing.assert_array_equal(found + 128, np.packbits(expected > 0, axis=1))
    else:
        cosines = (found * expected).sum(1) / np.linalg.norm(found.astype(float), axis=1)
        assert cosines.min() > 0.9999


BAD = [
    {"id": "a", "text": "good"},
    {"id": "b", "text": None},
    {"id": "c", "text": " \n"},
    {"id": "d", "text": 7},
    {"id": "e"},
    {"id": "f", "text": "long " * 50},
    {"id": "g", "text": "good"},
]


def test_rows_without_a_text_keep_their_place(run, tmp_path, reference):
    place = write_jsonl(tmp_path / "bad.jsonl", BAD)
    done = run(place, "--out", tmp_path / "out", "--outputs", "dense,sparse,colbert", max_length=20)
    assert done.exit_code == 3
    assert "7 rows, without a vector: 2 null, 1 empty, 1 not text, 1 text cut" in done.output
    table = read(tmp_path / "out")
    assert table.column("id").to_pylist() == list("abcdefg")
    assert table.column("text")[3].as_py() == "7"
    for output in ("dense", "sparse", "colbert"):
        missing = [value is None for value in table.column(output).to_pylist()]
        assert missing == [False, True, True, True, True, False, False], output
    np.testing.assert_allclose(
        table.column("dense")[6].as_py(), reference.encode(["good"]).dense[0], atol=1e-6
    )
    again = run(place, "--out", tmp_path / "out", "--outputs", "dense,sparse,colbert", max_length=20)
    assert again.exit_code == 3
    assert "7 rows, without a vector: 2 null" in again.output


def test_rows_without_a_text_may_be_left_out_or_stop_it(run, tmp_path):
    place = write_jsonl(tmp_path / "bad.jsonl", BAD)
    done = run(place, "--out", tmp_path / "skip", "--on-error", "skip", "--no-truncate", max_length=20)
    assert done.exit_code == 3
    assert "1 too long" in done.output
    assert read(tmp_path / "skip").column("id").to_pylist() == ["a", "g"]
    done = run(place, "--out", tmp_path / "fail", "--on-error", "fail", "--id-column", "id")
    assert done.exit_code == 1
    assert "the text of b is null" in done.output
    done = run(place, "--out", tmp_path / "fail2", "--on-error", "fail")
    assert "bad.jsonl, row 2, is null" in done.output
    assert not list((tmp_path / "fail2").glob(".part*"))


def test_a_numpy_file(run, tmp_path, reference):
    place = write_jsonl(tmp_path / "bad.jsonl", BAD[:3] + BAD[6:])
    out = tmp_path / "vectors.npy"
    done = run(place, "--out", out, "--id-column", "id", "--part-rows", 2)
    assert done.exit_code == 3
    found = np.load(out)
    assert found.shape == (4, 64)
    assert found.dtype == np.float32
    assert np.isnan(found[1:3]).all()
    np.testing.assert_allclose(found[[0, 3]], reference.encode(["good", "good"]).dense, atol=1e-6)
    assert pq.read_table(tmp_path / "vectors.ids.parquet").to_pydict() == {"id": ["a", "b", "c", "g"]}
    names = ["bad.jsonl", "vectors.ids.parquet", "vectors.npy"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert "already exists" in run(place, "--out", out).output
    # As if killed after the array was written and before its parts were removed.
    parts = tmp_path / "vectors.npy.parts"
    out.rename(tmp_path / "kept")
    assert run(place, "--out", parts, "--id-column", "id", "--part-rows", 2).exit_code == 3
    (tmp_path / "kept").rename(out)
    assert run(place, "--out", out, "--id-column", "id", "--part-rows", 2).exit_code == 3
    assert not parts.exists()
    np.testing.assert_array_equal(np.load(out), found)
    assert "can be written on this machine only" in run(place, "--out", "s3://bucket/vectors.npy").output


def test_columns_of_json_take_the_type_that_holds_all(run, tmp_path):
    rows = [
        {"text": "a", "whole": 1, "number": 1, "flag": True, "mixed": 1, "list": [1]},
        {"text": "b", "whole": None, "number": 0.5, "flag": None, "mixed": "one", "late": "x"},
    ]
    assert run(write_jsonl(tmp_path / "a.jsonl", rows), "--out", tmp_path / "out").exit_code == 0
    found = read(tmp_path / "out").drop_columns("dense").to_pylist()
    assert found == [
        {"text": "a", "whole": 1, "number": 1.0, "flag": True, "mixed": "1", "list": "[1]", "late": None},
        {
            "text": "b",
            "whole": None,
            "number": 0.5,
            "flag": None,
            "mixed": "one",
            "list": None,
            "late": "x",
        },
    ]


def test_csv_with_line_ends_in_fields_is_cut_between_rows(run, tmp_path):
    texts = [f'line {n}\nand "more", {n}' for n in range(10)]
    quoted = "".join('"{}",{}\r\n'.format(text.replace('"', '""'), n) for n, text in enumerate(texts))
    (tmp_path / "a.csv").write_bytes(b"text,n\r\n" + quoted.encode())
    assert run(tmp_path / "a.csv", "--out", tmp_path / "out", "--part-rows", 3).exit_code == 0
    found = read(tmp_path / "out")
    assert found.column("text").to_pylist() == texts
    assert found.column("n").to_pylist() == [str(n) for n in range(10)]


def test_bytes_that_are_no_text_are_counted(run, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "good.txt").write_text("good")
    (tmp_path / "texts" / "image.txt").write_bytes(b"\x89PNG\r\n" + bytes(range(128, 256)) * 4)
    done = run(tmp_path / "texts", "--out", tmp_path / "out")
    assert done.exit_code == 3
    assert "1 not text" in done.output
    assert read(tmp_path / "out").column("dense").to_pylist()[1] is None


def test_the_same_command_again_writes_nothing_twice(run, tmp_path):
    place = sources(tmp_path)["a.parquet"]
    out = tmp_path / "out"
    assert run(place, "--out", out, "--part-rows", 5).exit_code == 0
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    (out / "part-00000000-00000002.parquet").unlink()
    (out / ".part-00000000-00000002.parquet.1234").write_bytes(b"half")
    (out / ".gitignore").write_text("*")
    assert run(place, "--out", out, "--part-rows", 5).exit_code == 0
    after = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert {name for name in before if after[name] != before[name]} == {"part-00000000-00000002.parquet"}
    assert set(after) == {*before, "_embed.json", "_summary.json", ".gitignore"}
    assert read(out).num_rows == len(TEXTS)
    assert json.loads((out / "_summary.json").read_text())["rows"] == len(TEXTS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("--pooling", "cls"), "embedding space ("),
        (("--encoding", "int8"), "encoding (float32, now int8)"),
        (("--limit", "3"), "limit (None, now 3)"),
    ],
)
def test_other_options_are_refused(run, tmp_path, change, words):
    place = sources(tmp_path)["a.jsonl"]
    assert run(place, "--out", tmp_path / "out").exit_code == 0
    done = run(place, "--out", tmp_path / "out", *change)
    assert done.exit_code == 1
    assert words in done.output


def test_another_source_is_refused(run, tmp_path):
    place = write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}])
    assert run(place, "--out", tmp_path / "out").exit_code == 0
    write_jsonl(place, [{"text": "two"}])
    done = run(place, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "a different source" in done.output


def test_standard_input_goes_on_with_the_same_content_only(run, tmp_path):
    out = tmp_path / "out"
    arguments = ("-", "--out", out, "--part-rows", 1)
    assert run(*arguments, stdin=b"one\ntwo\n").exit_code == 0
    (out / "part-00000000-00000001.parquet").unlink()
    assert "a different source" in run(*arguments, stdin=b"one\nTWO\n").output
    assert run(*arguments, stdin=b"one\ntwo\n").exit_code == 0
    assert read(out).column("text").to_pylist() == ["one", "two"]
    assert not list(out.glob("*stdin*"))


def test_numbers_marks_and_halves_of_characters_in_json(run, tmp_path):
    lines = [b'{"text": "a", "id": 9007199254740993, "n": 9007199254740993}']
    lines += [b'{"text": "b", "id": 1, "n": 0.5}', b'{"text": "\\ud800 half", "id": 2, "n": 1}']
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    done = run(tmp_path / "a.jsonl", "--out", tmp_path / "out")
    assert done.exit_code == 3
    assert "1 not text" in done.output
    table = read(tmp_path / "out").to_pydict()
    assert table["id"] == [9007199254740993, 1, 2]
    assert table["n"] == ["9007199254740993", "0.5", "1"]
    assert table["dense"][2] is None


def test_names_that_look_like_patterns_or_other_formats(run, tmp_path, monkeypatch):
    folder = tmp_path / "a[1]" / "b.tsv.d"
    folder.mkdir(parents=True)
    (folder / "c[2].csv").write_text("text,n\none,1\n")
    (folder / "d.TSV").write_text("text\tn\none\t1\n")
    monkeypatch.chdir(folder)
    for number, source in enumerate((folder / "c[2].csv", "c[2].csv", "*.csv", "d.TSV")):
        done = run(source, "--out", f"out{number}")
        assert done.exit_code == 0, done.output
        assert read(folder / f"out{number}").drop_columns("dense").to_pylist() == [{"text": "one", "n": "1"}]


def test_what_cannot_be_embedded_is_said_in_a_sentence(run, tmp_path):
    good = write_jsonl(tmp_path / "good.jsonl", [{"text": "one", "n": 1}])
    parquet = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": TEXTS, "dense": TEXTS}), parquet)
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    (tmp_path / "cut.parquet").write_bytes(parquet.read_bytes()[:-20])
    (tmp_path / "list.jsonl").write_text("[1]\n")
    (tmp_path / "open.csv").write_text('text,"n\na,1\n')
    (tmp_path / "a.xml").write_text("<a/>")
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "a.txt").write_text("a")
    write_jsonl(tmp_path / "both" / "b.jsonl", [])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    out = tmp_path / "out"
    cases = [
        ((tmp_path / "absent",), "there is no file at"),
        ((tmp_path / "a.xml",), "a.xml is not known: set --format to one of parquet"),
        ((good, "--column", "body"), "no column 'body': set --column to one of 'text', 'n'"),
        ((good, "--column", "n"), "the column 'n' of"),
        ((good, "--id-column", "key"), "set --id-column to one of 'text', 'n'"),
        ((parquet,), "already has a column 'dense'"),
        ((tmp_path / "cut.parquet",), "cut.parquet cannot be read as Parquet"),
        ((tmp_path / "twice.parquet",), "twice.parquet has two columns of the same name"),
        ((tmp_path / "list.jsonl",), "list.jsonl row 1: it is not a JSON object"),
        ((tmp_path / "open.csv",), "the header of"),
        ((tmp_path / "both",), "holds files of several formats"),
        ((good, "--colbert-pool", "4"), "add colbert to --outputs"),
        ((good, "--outputs", "colbert", "--colbert-pool", "9"), "2<=x<=8"),
        ((good, "--outputs", "dense,rank"), "'rank' is not one of dense, sparse, colbert"),
    ]
    for arguments, words in cases:
        done = run(*arguments, "--out", out)
        assert done.exit_code in (1, 2), arguments
        assert words in " ".join(done.output.split()), (arguments, done.output)
        assert "Traceback" not in done.output
        assert not list(out.glob("part-*"))
    assert "already holds something else" in run(good, "--out", tmp_path / "full").output
    assert (tmp_path / "full" / "letter.txt").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    assert "cannot be read or written" in run(good, "--out", tmp_path / "file").output
    assert "cannot be read or written" in run(good, "--out", "/proc/no/such").output


def test_a_model_without_heads_says_so(tmp_path, demo_folder):
    app = create_app(Settings(model_path=demo_folder))
    place = write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}])
    arguments = ["embed", str(place), "--out", str(tmp_path / "out"), "--outputs", "sparse"]
    done = app.test_cli_runner().invoke(args=arguments)
    assert done.exit_code == 1
    assert "this model has no lexical weights" in done.output


def command(tiny_folder: Path, *arguments: object) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "EMBED_MODEL_PATH": str(tiny_folder), "EMBED_PRECISION": "fp32"}
    return [sys.executable, "-m", "flask", "embed", *map(str, arguments)], environment


@pytest.mark.parametrize("kill", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_killed_half_way_it_goes_on(tmp_path, tiny_folder, kill):
    texts = [f"{n} {TEXTS[n % 5] * 5}" for n in range(1500)]
    place = write_jsonl(tmp_path / "a.jsonl", [{"n": n, "text": text} for n, text in enumerate(texts)])
    out = tmp_path / "out"
    line, environment = command(tiny_folder, place, "--out", out, "--part-rows", 50)
    process = subprocess.Popen(
        line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    end = time.monotonic() + 120
    while len(list(out.glob("part-*"))) < 4 and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(kill)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (-9 if kill == signal.SIGKILL else 130), said
    if kill == signal.SIGINT:
        assert b"run the same command again" in said
        assert b"Traceback" not in said
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert 4 <= len(written) < 30
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    table = read(out)
    assert table.column("n").to_pylist() == list(range(1500))
    assert table.column("dense").null_count == 0
    assert all((out / name).stat().st_mtime_ns == stamp for name, stamp in written.items())
    assert not list(out.glob(".*"))


def test_ctrl_c_while_it_loads_is_one_sentence(tmp_path, tiny_folder):
    place = write_jsonl(tmp_path / "a.jsonl", [{"text": "one " * 1000}] * 1000)
    line, environment = command(tiny_folder, place, "--out", tmp_path / "out")
    process = subprocess.Popen(line, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
    while b"loading" not in (said := process.stderr.readline()):
        assert said
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert b"run the same command again" in said
    assert b"Traceback" not in said


def test_a_full_disk_is_said_and_what_is_whole_stays(tmp_path, tiny_folder):
    """A limit on file sizes stands in for a full disk: the write fails in the same place."""
    ensure_export(read_checkpoint(tiny_folder), NativeExporter(), "fp32", None)  # it is larger than the limit
    texts = [f"{n} {'word ' * (5 if n < 100 else 100)}" for n in range(200)]
    place = write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    out = tmp_path / "out"
    line, environment = command(tiny_folder, place, "--out", out, "--part-rows", 100, "--outputs", "colbert")
    environment |= {"EMBED_ENGINE": "native"}
    limited = (
        "import os, resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6)); "
        f"os.execv({line[0]!r}, {line!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "cannot be read or written" in done.stderr
    assert "too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in out.glob("*part*")] == ["part-00000000-00000000.parquet"]
    assert subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, timeout=120).returncode == 0
    assert read(out).column("text").to_pylist() == texts


def test_bulk_requirements_agree_with_those_of_tests():
    lines = [line for line in (ROOT / "requirements-bulk.txt").read_text().splitlines() if "==" in line]
    wanted = (ROOT / "requirements-dev.txt").read_text()
    for pin in ("pyarrow==26.0.1", "charset-normalizer==3.5.2", "pypdfium2==5.15.2", "selectolax==1.0.2"):
        assert pin in lines
        assert pin in wanted
