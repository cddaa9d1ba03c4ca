"""What pooled and quantised multi-vectors cost and how good they are: `python -m benchmarks.multivectors`.

A search with known answers: the beginning of a manual page in English, French, Spanish or Chinese must find
that page in German. The demo model has no head for multi-vectors, so its token states are used, with a head
that changes nothing. Scores are exact MaxSim. Then pooling is timed and compared with the forward pass.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from app.engine.checkpoint import HEADS, read_checkpoint
from app.engine.embeddings import FloatArray
from app.engine.encoder import Encoder, EncoderSettings
from app.engine.encodings import as_int8
from app.engine.token_pooling import pool
from app.processors import thread_budget
from benchmarks import machine
from benchmarks.corpus import Corpus
from benchmarks.services import ROOT

Row = dict[str, Any]
POOLS = (1, 2, 3, 4, 6, 8)
BEST = 10
PASSAGES_IN, QUERIES_IN = "de", ("en", "fr", "es", "zh")
QUERY_CHARACTERS = 40
QUERIES = 1000
ROUNDS = 3
TIMED = {"passage": 8, "chunk": 2}  # how many texts of each of the corpus's profiles


def signs(rows: FloatArray) -> FloatArray:
    """1 for a bit that is set, -1 for one that is not."""
    return np.where(rows > 0, np.float32(1), np.float32(-1))


def unit(rows: FloatArray) -> FloatArray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def half(rows: FloatArray) -> FloatArray:
    return rows.astype(np.float16).astype(np.float32)


def same(rows: FloatArray) -> FloatArray:
    return rows


# How passages and queries are compared, and the bytes of a passage's row of d numbers.
WAYS: dict[str, tuple[Callable[[FloatArray], FloatArray], Callable[[FloatArray], FloatArray], float]] = {
    "float32": (same, same, 4),
    "float16": (half, same, 2),
    "int8": (lambda rows: unit(as_int8(rows).astype(np.float32)), same, 1),
    "int8, lengths left as they are": (lambda rows: as_int8(rows).astype(np.float32), same, 1),
    "binary, query in floats": (signs, same, 1 / 8),
    "binary, query in bits": (signs, signs, 1 / 8),
}


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as scratch:
        folder = with_identity_head(options.demo, Path(scratch) / options.demo.name)
        passages, queries, answers = search_task(options.pages)
        encoder = Encoder(EncoderSettings(path=folder, threads=thread_budget(workers=1), throughput=True))
        encoder.load()
        found, asked = (encoder.encode(texts, outputs=("dense", "colbert")) for texts in (passages, queries))
        encoder.close()
        report: dict[str, Any] = machine.describe() | {
            "model": options.demo.name,
            "passages": len(passages),
            "passage_tokens": round(found.tokens / len(passages), 1),
            "queries": len(queries),
            "query_tokens": round(asked.tokens / len(queries), 1),
            "dense": found_by(asked.dense @ found.dense.T, answers),
        }
        middle = np.concatenate(found.multi_vector).mean(axis=0)
        report["quality"] = {
            "as they are": quality(found.multi_vector, asked.multi_vector, answers),
            "centred": quality(
                centred(found.multi_vector, middle), centred(asked.multi_vector, middle), answers
            ),
        }
        report["time"] = {
            name: cost(model) for name, model in (("demo", folder), ("full size", options.model))
        }
    report["broken"] = []
    for space, rows in report["quality"].items():
        print(f"\n{space}\n\n{table(rows)}", file=sys.stderr)
    machine.conclude(report, "multivectors", options.save)


def with_identity_head(model: Path, folder: Path) -> Path:
    """A copy of links, whose multi-vectors are the token states."""
    folder.mkdir()
    for file in model.iterdir():
        if file.is_file():
            (folder / file.name).symlink_to(file.resolve())
    width = read_checkpoint(model).width
    torch.save({"weight": torch.eye(width), "bias": torch.zeros(width)}, folder / HEADS["colbert"])
    return folder


def search_task(pages: Path) -> tuple[list[str], list[str], list[set[int]]]:
    """Passages, queries, and for each query the passages that answer it."""
    rows = pq.read_table(pages).to_pylist()
    texts = {(row["page"], row["language"]): row["text"] for row in rows}
    passages = list(dict.fromkeys(text for (_, language), text in texts.items() if language == PASSAGES_IN))
    place = {text: number for number, text in enumerate(passages)}
    answers: dict[str, set[int]] = {}
    for (page, language), text in texts.items():
        if language in QUERIES_IN and (page, PASSAGES_IN) in texts:
            answers.setdefault(beginning(text), set()).add(place[texts[page, PASSAGES_IN]])
    queries = sorted(query for query in answers if query)
    queries = random.Random(0).sample(queries, min(QUERIES, len(queries)))
    return passages, queries, [answers[query] for query in queries]


def beginning(text: str) -> str:
    """What a page is about, without its name, as that is the same in every language."""
    for dash in (" - ", " – ", " — "):
        name, found, rest = text.partition(dash)
        if found and len(name) < QUERY_CHARACTERS:
            return rest[:QUERY_CHARACTERS].rpartition(" ")[0] or rest[:QUERY_CHARACTERS]
    return ""


def centred(rows: list[FloatArray], middle: FloatArray) -> list[FloatArray]:
    """Multi-vectors as of a head whose rows are spread around 0."""
    return [unit(each - middle) for each in rows]


def quality(passages: list[FloatArray], queries: list[FloatArray], answers: list[set[int]]) -> list[Row]:
    """How many of the passages are found with each pool factor and each encoding."""
    found: list[Row] = []
    unpooled = None
    for factor in POOLS:
        pooled = pool(passages, factor) if factor > 1 else passages
        vectors = sum(map(len, pooled)) / len(pooled)
        for way, (of_passages, of_queries, size) in WAYS.items():
            scores = max_sim(map(of_queries, queries), map(of_passages, pooled))
            unpooled = scores if unpooled is None else unpooled
            row: Row = {"pool": factor, "encoding": way, "vectors": round(vectors, 1)}
            row["bytes"] = round(vectors * size * passages[0].shape[1])
            row |= found_by(scores, answers) | {"overlap": overlap(scores, unpooled)}
            found.append(row)
            print(row, file=sys.stderr)
    for row in found:
        row["smaller"] = round(found[0]["bytes"] / row["bytes"], 1)
        row["lost"] = round(1 - row["recall"] / found[0]["recall"], 4)
    return found


def max_sim(queries: Iterable[FloatArray], passages: Iterable[FloatArray]) -> FloatArray:
    """For each query and passage: the sum, over the query's rows, of the best match. (queries, passages)"""
    matrices = list(queries)
    rows = np.concatenate(matrices)
    starts = np.cumsum([0, *map(len, matrices[:-1])])
    best = ((rows @ passage.T).max(axis=1) for passage in passages)
    return np.stack([np.add.reduceat(each, starts) for each in best], axis=1)


def found_by(scores: FloatArray, answers: list[set[int]]) -> dict[str, float]:
    """Recall and nDCG of the ten best, from scores (queries, passages)."""
    recall, gain = [], []
    for best, right in zip(np.argsort(-scores, axis=1, kind="stable")[:, :BEST], answers, strict=True):
        hits = [place in right for place in best.tolist()]
        most = min(BEST, len(right))
        recall.append(sum(hits) / most)
        ideal = sum(1 / np.log2(place + 2) for place in range(most))
        gain.append(sum(hit / np.log2(place + 2) for place, hit in enumerate(hits)) / ideal)
    return {"recall": round(float(np.mean(recall)), 4), "ndcg": round(float(np.mean(gain)), 4)}


def overlap(scores: FloatArray, others: FloatArray) -> float:
    """The share of the ten best that is the same."""
    best = [np.argsort(-each, axis=1, kind="stable")[:, :BEST].tolist() for each in (scores, others)]
    return round(float(np.mean([len(set(a) & set(b)) / BEST for a, b in zip(*best, strict=True)])), 4)


def cost(model: Path) -> dict[str, Any]:
    """By how much pooling by a factor of 4 multiplies the CPU time of calls, measured in turns with none."""
    encoder = Encoder(EncoderSettings(path=model, threads=thread_budget(workers=1)))
    encoder.load()
    corpus = Corpus(model / "tokenizer.json", encoder.max_tokens)
    found: dict[str, Any] = {"precision": encoder.info.precision}
    for profile, count in TIMED.items():
        texts = corpus.texts(profile, count, seed=3)
        ratios = []
        for _ in range(ROUNDS):
            plain, pooled = (_seconds(encoder, texts, factor) for factor in (None, 4))
            ratios.append(round(pooled / plain, 4))
        # Pooling alone, by one thread's clock: what it adds, for machines that are too busy for the ratios.
        rows = encoder.encode(texts, outputs=("colbert",)).multi_vector
        start = time.thread_time()
        pool(rows, 4)
        found[profile] = {
            "tokens": sum(map(corpus.tokens, texts)),
            "ratio": median(ratios),
            "rounds": ratios,
            "plain_seconds": round(plain, 3),
            "pooling_seconds": round(time.thread_time() - start, 4),
        }
    encoder.close()
    return found


def _seconds(encoder: Encoder, texts: list[str], factor: int | None) -> float:
    start = time.process_time()
    encoder.encode(texts, outputs=("colbert",), colbert_pool=factor)
    return time.process_time() - start


def table(rows: list[Row]) -> str:
    """The table in Markdown."""
    lines = [
        "| pool | encoding | rows | bytes | times smaller | recall@10 | lost | nDCG@10 | of the top ten |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (row["pool"], row["encoding"], row["vectors"], row["bytes"], row["smaller"], row["recall"])
        lines.append(
            f"| {' | '.join(map(str, cells))} | {row['lost']:.1%} | {row['ndcg']} | {row['overlap']:.1%} |"
        )
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    models = ROOT / "models"
    parser.add_argument(
        "--demo", type=Path, default=models / "multilingual-e5-small", help="trained (%(default)s)"
    )
    parser.add_argument(
        "--model", type=Path, default=models / "bench", help="with heads, timed (%(default)s)"
    )
    parser.add_argument("--pages", type=Path, default=ROOT / ".venv" / "manpages" / "pages.parquet")
    parser.add_argument("--save", action="store_true", help="keep the figures under benchmarks/results")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(thread_budget(workers=1)))
    main()
