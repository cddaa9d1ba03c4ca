"""`flask embed --ray` on a real Ray cluster of two nodes, on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.engine.checkpoint import read_checkpoint
from app.engine.encoder import EncoderSettings
from app.engine.space import space_name
from tests.documents import lines, pdf

pytestmark = [pytest.mark.bulk, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parent.parent
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    cluster.add_node(**NODE)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """3000 rows in three files, one of them without a text."""
    folder = tmp_path_factory.mktemp("corpus")
    for file in range(3):
        rows = range(1000 * file, 1000 * (file + 1))
        texts = [None if n == 1234 else f"{n} Wörter 什么是 " * (1 + n % 20) for n in rows]
        pq.write_table(pa.table({"n": rows, "text": texts}), folder / f"{file}.parquet")
    return folder


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "flask", "embed", *map(str, arguments)]


def start(folder: Path, *arguments: object) -> subprocess.Popen:
    environment = {**os.environ, "EMBED_MODEL_PATH": str(folder), "EMBED_PRECISION": "fp32"}
    return subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen, status: int) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == status, said
    return said


def wait_for(found, seconds=180):
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
    return value


def actors() -> list[int]:
    """The processes that have an encoder."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 1) for line in listed.splitlines()]
    return [int(pid) for pid, name in lines if name.startswith("ray::MapWorker")]


def parts(out: Path) -> list[Path]:
    return sorted(out.glob("part-*.parquet"))


@pytest.fixture(scope="module")
def here(tmp_path_factory, corpus, tiny_folder) -> Path:
    """The output of a run on one machine."""
    out = tmp_path_factory.mktemp("here") / "out"
    finish(start(tiny_folder, corpus, "--out", out, "--part-rows", 100), 3)
    return out


def assert_same(out: Path, here: Path) -> None:
    assert [part.name for part in parts(out)] == [part.name for part in parts(here)]
    for mine, other in zip(parts(out), parts(here), strict=True):
        assert pq.read_schema(mine).equals(pq.read_schema(other), check_metadata=True)
        one, two = pq.read_table(mine), pq.read_table(other)
        assert one.drop_columns("dense").equals(two.drop_columns("dense"))
        assert one.column("dense").is_null().equals(two.column("dense").is_null())
        vectors = [
            np.stack(table.column("dense").drop_null().to_numpy(zero_copy_only=False)) for table in (one, two)
        ]
        np.testing.assert_allclose(*vectors, atol=1e-6)
    assert json.loads((out / "_summary.json").read_text()) == json.loads((here / "_summary.json").read_text())


def test_an_actor_is_killed_and_a_node_goes_and_every_row_is_there_once(
    tmp_path, corpus, tiny_folder, cluster, here
):
    node = cluster.add_node(**NODE)
    out = tmp_path / "out"
    process = start(tiny_folder, corpus, "--out", out, "--part-rows", 100, f"--ray={cluster.address}")
    wait_for(lambda: len(parts(out)) >= 3)
    os.kill(actors()[0], signal.SIGKILL)
    before = len(parts(out))
    wait_for(lambda: len(parts(out)) >= before + 3)
    assert process.poll() is None
    cluster.remove_node(node, allow_graceful=False)
    assert len(parts(out)) < 30, "all was done before the node went: make the corpus larger"
    assert "2999 rows" not in finish(process, 3)
    assert_same(out, here)
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_passages_of_documents_are_those_of_one_machine(tmp_path, tiny_folder, cluster):
    folder = tmp_path / "books"
    folder.mkdir()
    for n in range(6):
        (folder / f"{n}.md").write_text(f"# Nr. {n}\n\n" + "Ein Satz über 两个 Dinge. " * (50 * n))
        (folder / f"{n}.html").write_text(f"<title>Nr. {n}</title><p>" + "Noch ein Satz. " * (50 * n))
        (folder / f"{n}.pdf").write_bytes(
            pdf([lines(f"Page {page}.") for page in range(n)], title=f"Nr. {n}")
        )
    options = ("--part-rows", 4, "--chunk", 64, "--outputs", "dense")
    finish(start(tiny_folder, folder, "--out", tmp_path / "here", *options), 3)
    ray = f"--ray={cluster.address}"
    said = finish(start(tiny_folder, folder, "--out", tmp_path / "there", *options, ray), 3)
    assert "18 documents, " in said
    assert_same(tmp_path / "there", tmp_path / "here")


def test_killed_half_way_it_goes_on(tmp_path, corpus, tiny_folder, cluster, here):
    out = tmp_path / "out"
    arguments = (corpus, "--out", out, "--part-rows", 100, f"--ray={cluster.address}")
    process = start(tiny_folder, *arguments)
    wait_for(lambda: len(parts(out)) >= 4)
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: not actors())
    written = {part: part.stat().st_mtime_ns for part in parts(out)}
    assert len(written) < 30
    finish(start(tiny_folder, *arguments), 3)
    assert_same(out, here)
    assert all(part.stat().st_mtime_ns == stamp for part, stamp in written.items())


def test_a_local_run_goes_on_where_the_cluster_stopped(tmp_path, corpus, tiny_folder, cluster, here):
    out = tmp_path / "out"
    process = start(tiny_folder, corpus, "--out", out, "--part-rows", 100, f"--ray={cluster.address}")
    wait_for(lambda: len(parts(out)) >= 2)
    process.send_signal(signal.SIGINT)
    assert "run the same command again" in finish(process, 130)
    wait_for(lambda: not actors())
    finish(start(tiny_folder, corpus, "--out", out, "--part-rows", 100), 3)
    assert_same(out, here)


def test_without_an_address_it_runs_on_this_machine(tmp_path, corpus, tiny_folder, here):
    out = tmp_path / "out"
    finish(start(tiny_folder, corpus, "--out", out, "--part-rows", 100, "--cpus", 1, "--ray"), 3)
    assert_same(out, here)


def test_a_cluster_that_is_not_there(tmp_path, corpus, tiny_folder):
    said = finish(start(tiny_folder, corpus, "--out", tmp_path / "out", "--ray=127.0.0.1:1"), 1)
    assert "there is no Ray cluster at 127.0.0.1:1" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("lacks", ["folder", "weights"])
def test_a_node_without_the_same_model(tmp_path, corpus, tiny_folder, cluster, lacks):
    """The nodes share this machine's disk, so the command is given another version instead."""
    from app.bulk.cluster import embed_there
    from app.bulk.destination import Destination
    from app.bulk.errors import BulkError
    from app.bulk.options import Cluster, Model, Options
    from app.bulk.progress import Progress
    from app.bulk.source import find_source
    from app.bulk.work import Work

    found = read_checkpoint(tiny_folder)
    digest = found.fingerprint if lacks == "folder" else "0" * 64
    space = space_name(digest, "mean", "fp32", "", 8192)
    model = Model("tiny", space, digest, "mean", "fp32", "openvino", 64, 8192)
    options = Options(("dense",), "float32", True, "null", 100, None, None)
    (tmp_path / "out").mkdir()
    work = Work(find_source(str(corpus)), Destination(str(tmp_path / "out")), options, model)
    settings = EncoderSettings(path=tiny_folder, precision="fp32")
    if lacks == "folder":
        settings = replace(settings, path=tmp_path / "absent")
    with pytest.raises(BulkError) as raised, Progress(3000) as progress:
        embed_there(work, settings, list(work.source.parts(100)), progress, Cluster(cluster.address))
    words = {
        "folder": "there is no model folder",
        "weights": f"not {space}: give every node the same model folder",
    }
    assert words[lacks] in str(raised.value)
    assert "the node" in str(raised.value)
    assert not parts(tmp_path / "out")
