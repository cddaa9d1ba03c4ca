"""`flask embed --reuse`: texts that an earlier output has are not computed again."""

import json
import logging
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.bulk import passages
from app.bulk.options import Counts
from app.bulk.reuse import Earlier
from app.bulk.source import find_source
from app.engine.checkpoint import read_checkpoint
from tests.documents import lines, pdf
from tests.test_bulk import read, write_jsonl

OUTPUTS = ("--outputs", "dense,sparse,colbert")
ROWS: list[dict] = [
    {"id": number, "text": f"{number} what is learned {'again ' * (number % 9)}"} for number in range(60)
]
ROWS[7]["text"] = None
ROWS[8]["text"] = "long " * 100
ROWS[9]["text"] = "twice"
ROWS[10]["text"] = "twice"
ROWS[11]["text"] = 7


def summary(out: Path) -> Counts:
    return Counts(**json.loads((out / "_summary.json").read_text()))


@pytest.fixture(scope="module")
def first(run, tmp_path_factory) -> Path:
    """A folder with a source and its output."""
    folder = tmp_path_factory.mktemp("first")
    place = write_jsonl(folder / "old.jsonl", ROWS)
    done = run(place, "--out", folder / "old", "--part-rows", 7, *OUTPUTS, max_length=64)
    assert done.exit_code == 3, done.output
    return folder


@pytest.fixture
def old(first, tmp_path) -> Path:
    """A copy of the output, which a test may change."""
    shutil.copytree(first, tmp_path, dirs_exist_ok=True)
    return tmp_path / "old"


def changed() -> list[dict]:
    """The rows in another order, some of them changed, and some added."""
    chance = random.Random(1)
    rows = [dict(row) for row in ROWS]
    chance.shuffle(rows)
    for row in rows[::20]:
        row["text"] = f"new {row['id']}"
    return [*rows, {"id": 99, "text": "7"}, {"id": 100, "text": " "}]


def assert_same(
    one: Path, two: Path, columns: tuple[str, ...] = ("dense", "sparse", "colbert"), atol: float = 1e-5
) -> None:
    """Both hold the same rows and vectors."""
    left, right = read(one), read(two)
    assert left.drop_columns(list(columns)).equals(right.drop_columns(list(columns)))
    for column in columns:
        assert left.schema.field(column) == right.schema.field(column)
        for mine, theirs in zip(
            left.column(column).to_pylist(), right.column(column).to_pylist(), strict=True
        ):
            assert (mine is None) == (theirs is None)
            if mine is not None and column == "sparse":
                assert mine["indices"] == theirs["indices"]
                mine, theirs = mine["values"], theirs["values"]
            if mine is not None:
                np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("more", [(), ("--on-error", "skip"), ("--limit", 30), ("--outputs", "sparse,dense")])
def test_what_has_not_changed_is_taken_from_there(run, tmp_path, old, more):
    place = write_jsonl(tmp_path / "new.jsonl", changed())
    arguments = (place, "--part-rows", 16, *OUTPUTS, *more)
    assert run(*arguments, "--out", tmp_path / "anew", max_length=64).exit_code == 3
    done = run(*arguments, "--out", tmp_path / "out", "--reuse", old, max_length=64)
    assert done.exit_code == 3, done.output
    columns = ("dense", "sparse") if "--outputs" in more else ("dense", "sparse", "colbert")
    assert_same(tmp_path / "anew", tmp_path / "out", columns)
    anew, found = summary(tmp_path / "anew"), summary(tmp_path / "out")
    assert f", {found.reused} of them reused" in done.output
    assert (found.rows, found.faults) == (anew.rows, anew.faults)
    computed = {
        row["text"] for row in changed()[: 30 if "--limit" in more else None] if isinstance(row["text"], str)
    }
    computed -= {" ", *(row["text"] for row in ROWS)}
    assert found.rows - found.reused - sum(found.faults.values()) == len(computed)
    assert 0 < found.tokens < anew.tokens / 4


def test_the_vectors_are_those_of_the_old_files(run, tmp_path, old):
    """They are not computed: changed vectors in the old files come out unchanged."""
    for part in old.glob("part-*"):
        table = pq.read_table(part)
        dense = pa.array(
            [row and [9.0] * 64 for row in table.column("dense").to_pylist()],
            table.schema.field("dense").type,
        )
        pq.write_table(table.set_column(table.schema.get_field_index("dense"), "dense", dense), part)
    place = write_jsonl(tmp_path / "new.jsonl", [*ROWS[:20], {"id": 99, "text": "new"}])
    out = tmp_path / "v.npy"
    assert run(place, "--out", out, "--reuse", old, max_length=64).exit_code == 3
    nines = (np.load(out) == 9).all(axis=1)
    assert nines.tolist() == [*(number not in (7, 11) for number in range(20)), False]


def test_nothing_has_changed(run, tmp_path, old, caplog):
    caplog.set_level(logging.INFO)
    place = tmp_path / "old.jsonl"
    assert run(place, "--out", tmp_path / "out", "--reuse", old, *OUTPUTS, max_length=64).exit_code == 3
    assert summary(tmp_path / "out").tokens == 0
    assert_same(old, tmp_path / "out")
    assert "60 rows" in caplog.text
    # An output of reused vectors can be reused like any other.
    again = run(place, "--out", tmp_path / "again", "--reuse", tmp_path / "out", *OUTPUTS, max_length=64)
    assert again.exit_code == 3
    assert summary(tmp_path / "again").reused == summary(tmp_path / "out").reused == 58


def test_an_earlier_output_may_be_unfinished(run, tmp_path, old, caplog):
    (old / "_summary.json").unlink()
    (old / "part-00000000-00000002.parquet").unlink()
    assert (
        run(
            tmp_path / "old.jsonl", "--out", tmp_path / "out", "--reuse", old, *OUTPUTS, max_length=64
        ).exit_code
        == 3
    )
    assert "is not finished: the vectors that it has are reused" in caplog.text
    assert 0 < summary(tmp_path / "out").reused < 58
    assert read(tmp_path / "out").num_rows == 60


def test_columns_of_other_types(run, tmp_path):
    texts = pa.array(["one", "two", "one", None]).dictionary_encode()
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"body": texts.cast(pa.large_string())}), tmp_path / "b.parquet")
    assert run(tmp_path / "a.parquet", "--out", tmp_path / "old").exit_code == 3
    done = run(
        tmp_path / "b.parquet", "--column", "body", "--out", tmp_path / "new", "--reuse", tmp_path / "old"
    )
    assert done.exit_code == 3, done.output
    assert summary(tmp_path / "new") == Counts(rows=4, null=1, reused=3)
    assert read(tmp_path / "new").column("dense").equals(read(tmp_path / "old").column("dense"))


def test_other_vectors_are_not_reused(run, tmp_path, old, tiny_folder):
    place = tmp_path / "old.jsonl"
    (tmp_path / "empty").mkdir()
    (tmp_path / "array.npy").write_bytes(b"")
    damaged = tmp_path / "damaged"
    shutil.copytree(old, damaged)
    (damaged / "part-00000000-00000002.parquet").write_bytes(b"PAR1")
    dropped = tmp_path / "dropped"
    shutil.copytree(old, dropped)
    for part in dropped.glob("part-*"):
        pq.write_table(pq.read_table(part).drop_columns("text"), part)
    assert run(place, "--out", tmp_path / "dense", max_length=64).exit_code == 3
    digest = read_checkpoint(tiny_folder).fingerprint[:12]
    spaces = f"embedding space {digest}.mean.fp32.64.1 (now {digest}.cls.fp32.64.1)"
    for reuse, more, words in (
        (old, ("--pooling", "cls"), f"its vectors differ: it has {spaces}"),
        (old, ("--encoding", "int8"), "it has encoding float32 (now int8)"),
        (
            old,
            ("--no-truncate", "--pooling", "cls"),
            f"it has truncate True (now False), {spaces}",
        ),
        (tmp_path / "dense", OUTPUTS, "it has no sparse and no colbert vectors"),
        (tmp_path / "out", (), "--reuse and --out name the same folder"),
        (f"{tmp_path}/dense/../out/", (), "--reuse and --out name the same folder"),
        (tmp_path / "absent", (), "is not an output folder of this program"),
        (tmp_path / "empty", (), "is not an output folder of this program"),
        (place, (), "is not an output folder of this program"),
        (tmp_path / "array.npy", (), "array.npy holds no texts: --reuse takes a folder"),
        (damaged, (), "part-00000000-00000002.parquet cannot be read"),
        (dropped, (), "has no column 'text' any more"),
        (old, ("--ray",), "--reuse works on one machine"),
    ):
        done = run(place, "--out", tmp_path / "out", "--reuse", reuse, *more, max_length=64)
        assert done.exit_code == 1, (more, done.output)
        assert words in " ".join(done.output.split()), done.output
        assert not (tmp_path / "out").exists()
    done = run(place, "--out", tmp_path / "out", "--reuse", old, max_length=65)
    assert f"it has embedding space {digest}.mean.fp32.64.1 (now {digest}.mean.fp32.65.1)" in done.output


def test_a_row_that_stops_it_is_named_by_its_own_number(run, tmp_path, old):
    place = write_jsonl(tmp_path / "new.jsonl", [*ROWS[:5], {"text": "new"}, {"text": None}])
    done = run(place, "--out", tmp_path / "out", "--reuse", old, "--on-error", "fail", max_length=64)
    assert done.exit_code == 1
    assert "new.jsonl, row 7, is null" in done.output


def test_texts_are_told_apart(tmp_path, old):
    """Every text finds its own row, or none."""
    manifest = json.loads((old / "_embed.json").read_text())
    table = read(old)
    earlier = Earlier(str(old), manifest, str(tmp_path / "out"), [table.schema.field("dense")])
    texts = [text for text in table.column("text").to_pylist() if text]
    assert [table.column("text")[row].as_py() for row in earlier.find(texts)] == texts
    assert set(earlier.find([*(text + " " for text in texts), "", None, 7, "\ud800"])) == {-1}


def text_of(number: int, paragraphs: int) -> str:
    return "\n\n".join(
        f"Document {number}, part {part}. It says {part} things. 两个" for part in range(paragraphs)
    )


DOCUMENTS: list[dict] = [{"id": n, "text": text_of(n, 1 + n % 5 * 7)} for n in range(24)]
DOCUMENTS[3]["text"] = None
DOCUMENTS[4]["text"] = " \n"
DOCUMENTS[5]["text"] = 7
DOCUMENTS[7]["text"] = DOCUMENTS[9]["text"] = DOCUMENTS[8]["text"]
CHUNK = ("--chunk", "32", "--overlap", "8")
FRESH = {2: "new words " * 60, 13: text_of(13, 20) + "\nand more", 99: "added " * 50}


@pytest.fixture(scope="module")
def first_passages(run, tmp_path_factory) -> Path:
    """A folder with documents and their passages."""
    folder = tmp_path_factory.mktemp("passages")
    place = write_jsonl(folder / "old.jsonl", DOCUMENTS)
    done = run(place, "--out", folder / "old", "--part-rows", 5, *OUTPUTS, *CHUNK)
    assert done.exit_code == 3, done.output
    return folder


@pytest.fixture
def old_passages(first_passages, tmp_path) -> Path:
    shutil.copytree(first_passages, tmp_path, dirs_exist_ok=True)
    return tmp_path / "old"


def changed_documents() -> list[dict]:
    """In another order, with changed, added, removed, repeated, empty and faulty documents."""
    rows = [
        dict(row, text=FRESH.get(row["id"], row["text"])) for row in DOCUMENTS if row["id"] not in (6, 20)
    ]
    rows += [{"id": 99, "text": FRESH[99]}, dict(rows[12]), {"id": 100, "text": ""}]
    random.Random(2).shuffle(rows)
    return rows


def change(folder: Path, to) -> None:
    """Rewrite every part as `to` returns it."""
    for part in folder.glob("part-*"):
        pq.write_table(to(pq.read_table(part)), part)


def without_vectors(table: pa.Table, row: int) -> pa.Table:
    for name in ("dense", "sparse", "colbert"):
        index, field = table.schema.get_field_index(name), table.schema.field(name)
        values = table.column(name).to_pylist()
        values[row] = None
        table = table.set_column(index, field, pa.array(values, field.type))
    return table


def tokens_of(run, folder: Path, texts: list[str], *options: str) -> int:
    """How many tokens are computed for these texts alone."""
    place = write_jsonl(folder / "rest.jsonl", [{"text": text} for text in texts])
    assert run(place, "--out", folder / "rest", *options).exit_code == 0
    return summary(folder / "rest").tokens


@pytest.mark.parametrize(
    "more", [(), ("--on-error", "skip"), ("--limit", 12), ("--outputs", "sparse,dense"), ("--part-rows", "4")]
)
def test_documents_that_have_not_changed_are_taken_from_there(run, tmp_path, old_passages, more):
    place = write_jsonl(tmp_path / "new.jsonl", changed_documents())
    arguments = (place, *OUTPUTS, *CHUNK, *more)
    assert run(*arguments, "--out", tmp_path / "anew").exit_code == 3
    done = run(*arguments, "--out", tmp_path / "out", "--reuse", old_passages)
    assert done.exit_code == 3, done.output
    columns = ("dense", "sparse") if "--outputs" in more else ("dense", "sparse", "colbert")
    assert_same(tmp_path / "anew", tmp_path / "out", columns, 1e-6)
    rows = changed_documents()[: 12 if "--limit" in more else None]
    texts = [row["text"] for row in rows if isinstance(row["text"], str) and row["text"].strip()]
    fresh = [text for text in texts if text in FRESH.values()]
    anew, found = summary(tmp_path / "anew"), summary(tmp_path / "out")
    assert found.reused == len(texts) - len(fresh) > 0
    assert (found.rows, found.passages, found.faults) == (anew.rows, anew.passages, anew.faults)
    assert found.tokens == tokens_of(run, tmp_path, fresh, *CHUNK) > 0
    said = f"{found.rows} documents, {found.passages} passages, {found.reused} of the documents reused"
    assert said in done.output


@pytest.mark.parametrize(
    "more", [("--late",), ("--colbert-pool", "4", "--part-rows", "4"), ("--encoding", "int8")]
)
def test_options_of_passages_hold_for_reused_ones(run, tmp_path, more):
    old = write_jsonl(tmp_path / "old.jsonl", DOCUMENTS)
    new = write_jsonl(tmp_path / "new.jsonl", changed_documents())
    arguments = (*OUTPUTS, *CHUNK, *more)
    assert run(old, "--out", tmp_path / "old", *arguments).exit_code == 3
    assert run(new, "--out", tmp_path / "anew", *arguments).exit_code == 3
    done = run(new, "--out", tmp_path / "out", "--reuse", tmp_path / "old", *arguments)
    assert done.exit_code == 3, done.output
    assert_same(tmp_path / "anew", tmp_path / "out", atol=1e-6)
    assert 0 < summary(tmp_path / "out").tokens < summary(tmp_path / "anew").tokens / 2


def test_vectors_of_passages_are_those_of_the_old_files(run, tmp_path, old_passages):
    """They are not computed: changed vectors in the old files come out unchanged, at their own passages."""

    def numbered(table: pa.Table) -> pa.Table:
        kept = zip(table.column("id").to_pylist(), table.column("chunk").to_pylist(), strict=True)
        dense = pa.array(
            [None if chunk is None else [float(id), float(chunk)] * 32 for id, chunk in kept],
            table.schema.field("dense").type,
        )
        return table.set_column(table.schema.get_field_index("dense"), "dense", dense)

    change(old_passages, numbered)
    rows = [row for row in DOCUMENTS[::-1] if row["id"] not in (8, 9)]
    place, out = write_jsonl(tmp_path / "new.jsonl", rows), tmp_path / "v.npy"
    assert run(place, "--out", out, "--reuse", old_passages, "--part-rows", 9, *CHUNK).exit_code == 3
    beside = pq.read_table(tmp_path / "v.passages.parquet").to_pylist()
    assert len(beside) > 60
    for row, vector in zip(beside, np.load(out), strict=True):
        if row["chunk"] is None:
            assert np.isnan(vector).all()
        else:
            assert vector[1] == row["chunk"]
            assert vector[0] in ((7, 8, 9) if row["id"] == 7 else (row["id"],))


def test_a_document_without_all_of_its_vectors_is_computed(run, tmp_path, old_passages):
    """One has a row without vectors in the old output; --on-error skip left out the last row of another."""
    lost = {}

    def faulty(table: pa.Table) -> pa.Table:
        ids, chunks = table.column("id").to_pylist(), table.column("chunk").to_pylist()
        if 14 in ids:
            lost[14] = ids.index(14) + 2
            assert chunks[lost[14]] == 2
            table = without_vectors(table, lost[14])
        for id, index in ((18, -1), (19, 1)):
            if id in ids:
                lost[id] = [row for row, of in enumerate(ids) if of == id][index]
        left_out = [lost.get(id) for id in (18, 19) if id in ids]
        return table.take([row for row in range(table.num_rows) if row not in left_out])

    place = tmp_path / "old.jsonl"
    assert run(place, "--out", tmp_path / "anew", *OUTPUTS, *CHUNK).exit_code == 3
    change(old_passages, faulty)
    assert sorted(lost) == [14, 18, 19]
    done = run(place, "--out", tmp_path / "out", "--reuse", old_passages, *OUTPUTS, *CHUNK)
    assert done.exit_code == 3, done.output
    assert_same(tmp_path / "anew", tmp_path / "out", atol=1e-6)
    found = summary(tmp_path / "out")
    assert found.reused == 21 - 3
    assert found.tokens == tokens_of(run, tmp_path, [DOCUMENTS[id]["text"] for id in lost], *CHUNK)


@pytest.mark.parametrize("outputs", ["dense", "dense,colbert"])
def test_pieces_of_a_text_larger_than_a_window_are_reused(run, tmp_path, monkeypatch, outputs):
    """And the piece with a fault in the old output is computed, without the others."""
    monkeypatch.setattr(passages, "WINDOW_CHARACTERS", 1500)
    monkeypatch.setattr(passages, "WINDOW_NUMBERS", 1500 * 64)  # the tiny model has 64 numbers per vector
    texts = [text_of(1, 200), "  ", "short", text_of(2, 100)]
    place = write_jsonl(tmp_path / "old.jsonl", [{"text": text} for text in texts])
    options = ("--outputs", outputs, *CHUNK)
    assert run(place, "--out", tmp_path / "old", *options).exit_code == 3
    new = write_jsonl(tmp_path / "new.jsonl", [{"text": text} for text in ["other", *texts[::-1]]])
    arguments = (new, *options)
    assert run(*arguments, "--out", tmp_path / "anew").exit_code == 3
    columns = tuple(outputs.split(","))
    for faulty, reused in ((False, 3), (True, 2)):
        if faulty:
            change(
                tmp_path / "old",
                lambda table: table.take([row for row in range(table.num_rows) if row != 20]),
            )
        out = tmp_path / f"out{faulty}"
        done = run(*arguments, "--out", out, "--reuse", tmp_path / "old")
        assert done.exit_code == 3, done.output
        assert_same(tmp_path / "anew", out, columns, 1e-6)
        anew, found = summary(tmp_path / "anew"), summary(out)
        assert (found.reused, found.passages, found.rows) == (reused, anew.passages, anew.rows)
        assert found.tokens < anew.tokens


def test_pages_are_those_of_the_new_source(run, tmp_path):
    """The text of a PDF came from a file without pages before."""
    sentences = [[f"Sentence {n} on page {page}." for n in range(30)] for page in range(3)]
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.pdf").write_bytes(pdf([lines(*page) for page in sentences]))
    source = find_source(str(tmp_path / "new"))
    (text,) = source.read(next(source.parts(1))).texts
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "b.txt").write_text(text, newline="")
    for name in ("old", "new"):
        assert run(tmp_path / name, "--out", tmp_path / f"{name}-out", *CHUNK).exit_code == 0
    done = run(tmp_path / "new", "--out", tmp_path / "out", "--reuse", tmp_path / "old-out", *CHUNK)
    assert done.exit_code == 0, done.output
    assert_same(tmp_path / "new-out", tmp_path / "out", ("dense",), 1e-6)
    assert summary(tmp_path / "out").tokens == 0
    assert set(read(tmp_path / "out").column("page").to_pylist()) == {1, 2, 3}


def test_passages_of_another_cut_are_not_reused(run, tmp_path, old_passages):
    place = tmp_path / "old.jsonl"
    assert run(place, "--out", tmp_path / "rows", *OUTPUTS).exit_code == 3
    dropped = tmp_path / "dropped"
    shutil.copytree(old_passages, dropped)
    change(dropped, lambda table: table.drop_columns("document_sha256"))
    for reuse, more, words in (
        (old_passages, ("--chunk", "33", "--overlap", "8"), "it has chunk tokens 32 (now 33)"),
        (old_passages, ("--chunk", "32", "--overlap", "9"), "it has chunk overlap 8 (now 9)"),
        (old_passages, (*CHUNK, "--late"), "it has chunk late False (now True)"),
        (old_passages, (*CHUNK, "--colbert-pool", "2"), "it has colbert pool None (now 2)"),
        (old_passages, (), "it was made with --chunk: its vectors are of passages"),
        (tmp_path / "rows", CHUNK, "it was made without --chunk: its vectors are of whole texts"),
        (dropped, CHUNK, "has no column 'document_sha256' any more"),
    ):
        done = run(place, "--out", tmp_path / "out", "--reuse", reuse, *OUTPUTS, *more)
        assert done.exit_code == 1, (more, done.output)
        assert words in " ".join(done.output.split()), done.output
        assert not (tmp_path / "out").exists()


def test_a_document_that_stops_it_is_named(run, tmp_path, old_passages):
    place = write_jsonl(tmp_path / "new.jsonl", [*DOCUMENTS[:3], {"text": "new"}, {"text": None}])
    done = run(place, "--out", tmp_path / "out", "--reuse", old_passages, "--on-error", "fail", *CHUNK)
    assert done.exit_code == 1
    assert "new.jsonl, row 5, is null" in done.output
