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

from app.bulk.options import Counts
from app.bulk.reuse import Earlier
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
    """The output, to do with as a test likes."""
    shutil.copytree(first, tmp_path, dirs_exist_ok=True)
    return tmp_path / "old"


def changed() -> list[dict]:
    """The rows in another order, some of them others, and some more."""
    chance = random.Random(1)
    rows = [dict(row) for row in ROWS]
    chance.shuffle(rows)
    for row in rows[::20]:
        row["text"] = f"new {row['id']}"
    return [*rows, {"id": 99, "text": "7"}, {"id": 100, "text": " "}]


def assert_same(one: Path, two: Path, columns: tuple[str, ...] = ("dense", "sparse", "colbert")) -> None:
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
                np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


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
    """Not computed: they are made others there, and come out so."""
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
    # An output of reused vectors is reused as any other.
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


def test_other_vectors_are_not_reused(run, tmp_path, old):
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
    for reuse, more, words in (
        (old, ("--pooling", "cls"), "its vectors are others: it has pooling mean (now cls)"),
        (old, ("--encoding", "int8"), "it has encoding float32 (now int8)"),
        (
            old,
            ("--no-truncate", "--pooling", "cls"),
            "it has truncate True (now False), pooling mean (now cls)",
        ),
        (tmp_path / "dense", OUTPUTS, "it has no sparse and no colbert vectors"),
        (tmp_path / "out", (), "--reuse and --out name the same folder"),
        (f"{tmp_path}/dense/../out/", (), "--reuse and --out name the same folder"),
        (tmp_path / "absent", (), "is no output folder of this program"),
        (tmp_path / "empty", (), "is no output folder of this program"),
        (place, (), "is no output folder of this program"),
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
    assert "it has max tokens 64 (now 65)" in done.output


def test_a_row_that_stops_it_is_named_by_its_own_number(run, tmp_path, old):
    place = write_jsonl(tmp_path / "new.jsonl", [*ROWS[:5], {"text": "new"}, {"text": None}])
    done = run(place, "--out", tmp_path / "out", "--reuse", old, "--on-error", "fail", max_length=64)
    assert done.exit_code == 1
    assert "new.jsonl, row 7, is null" in done.output


def test_texts_are_told_apart(tmp_path, old):
    """Every text finds its own row, or none."""
    manifest = json.loads((old / "_embed.json").read_text())
    earlier = Earlier(str(old), manifest, str(tmp_path / "out"))
    table = read(old)
    texts = [text for text in table.column("text").to_pylist() if text]
    assert [table.column("text")[row].as_py() for row in earlier.find(texts)] == texts
    assert set(earlier.find([*(text + " " for text in texts), "", None, 7, "\ud800"])) == {-1}
