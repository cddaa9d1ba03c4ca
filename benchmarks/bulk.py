"""How much of the encoder's speed `flask embed` keeps, and what a second actor adds: make bench-bulk.

The passages are as long as in the other benchmarks, and are written as Parquet. In turns, the encoder alone
gets all of them in one call; the same encoder reads, embeds and writes them as the command does; and an
encoder that computes one batch at a time, as in a server, gets them.
On Ray one and two actors, with a processor each: their speed is taken from when each has written a
part to the last, so that loading the model is left out.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from app.bulk.destination import Destination
from app.bulk.local import embed_here
from app.bulk.options import Model, Options
from app.bulk.progress import Progress
from app.bulk.source import find_source
from app.bulk.work import Work
from app.engine.checkpoint import read_checkpoint
from app.engine.encoder import Encoder, EncoderSettings
from app.processors import thread_budget
from benchmarks import machine
from benchmarks.corpus import Corpus
from benchmarks.services import ROOT

ACTOR_ROWS = 8  # rows per part in the runs on Ray


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as scratch:
        report = run(options, Path(scratch))
    print(f"{report['texts']} passages, {report['tokens']} tokens, {report['machine']['cpu']}")
    for one in report["rounds"]:
        print(
            f"encoder {one['encoder']:.0f} tokens/s, reading and writing too {one['embed']:.0f} tokens/s, "
            f"a batch at a time {one['one_batch']:.0f} tokens/s"
        )
    print(f"several batches at a time are {report['several_batches']:.2f} times as fast as one")
    print(f"kept of the encoder's own speed {report['kept']:.1%}, padding {report['padding']:.1%}")
    one, two = report["actors"]
    print(f"one actor {one:.0f} tokens/s, two {two:.0f} tokens/s: {two / one:.2f} times as fast")
    if options.save:
        machine.save(report, "bulk")


def run(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measure everything; the report has the figures of each round."""
    folder = options.model.resolve()
    corpus = Corpus(folder / "tokenizer.json", read_checkpoint(folder).max_tokens)
    texts = corpus.texts("mixed", options.texts, seed=7)
    source = scratch / "texts.parquet"
    pq.write_table(pa.table({"text": texts}), source)
    report = machine.describe() | {"model": folder.name, "texts": len(texts), "rounds": []}

    progress = Progress(len(texts))
    settings = EncoderSettings(path=folder, threads=thread_budget(workers=1))
    one_batch = Encoder(settings)
    encoder = Encoder(replace(settings, throughput=True), progress.watch)
    for each in (one_batch, encoder):
        each.load()
    for number in range(options.rounds):
        alone = _rate(encoder, texts)
        work = _work(encoder, source, scratch / f"out{number}")
        with progress:
            embed_here(work, encoder, list(work.source.parts(work.options.part_rows)), progress)
        embed = progress.tokens / progress.seconds
        rates = {"encoder": alone, "embed": embed, "one_batch": _rate(one_batch, texts)}
        report["rounds"].append(rates)
        report["tokens"], report["padding"] = progress.tokens, progress.padding
    for each in (one_batch, encoder):
        each.close()
    report["several_batches"] = median(rates["encoder"] / rates["one_batch"] for rates in report["rounds"])
    report["kept"] = median(rates["embed"] / rates["encoder"] for rates in report["rounds"])
    report["actors"] = [_actors(folder, source, scratch / f"ray{count}", count) for count in (1, 2)]
    return report


def _rate(encoder: Encoder, texts: list[str]) -> float:
    """Tokens per second of the encoder alone."""
    start = time.perf_counter()
    return encoder.encode(texts).tokens / (time.perf_counter() - start)


def _work(encoder: Encoder, source: Path, out: Path) -> Work:
    info = encoder.info
    model = Model("bench", info.digest, "mean", info.precision, info.engine, info.width, info.max_tokens)
    options = Options(("dense",), "float32", True, "null", 2048, None, None)
    destination = Destination(str(out))
    destination.begin({})
    return Work(find_source(str(source)), destination, options, model)


def _actors(folder: Path, source: Path, out: Path, count: int) -> float:
    """Tokens per second of this many actors."""
    command = [sys.executable, "-m", "flask", "embed", source, "--out", out, "--part-rows", ACTOR_ROWS]
    command += ["--actors", count, "--cpus", 1, "--ray"]
    environ = {**os.environ, "EMBED_MODEL_PATH": str(folder)}
    subprocess.run([str(word) for word in command], cwd=ROOT, env=environ, check=True, capture_output=True)
    parts = sorted(out.glob("part-*.parquet"), key=lambda part: part.stat().st_mtime)
    counts = [json.loads(pq.read_metadata(part).metadata[b"counts"])["tokens"] for part in parts]
    # Count from the time when each actor has written its first part.
    return sum(counts[count:]) / (parts[-1].stat().st_mtime - parts[count - 1].stat().st_mtime)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument(
        "--model", type=Path, default=ROOT / "models" / "bench", help="a folder (%(default)s)"
    )
    parser.add_argument("--texts", type=int, default=1024, help="passages (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (%(default)s)")
    parser.add_argument("--save", action="store_true", help="keep the figures under benchmarks/results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
