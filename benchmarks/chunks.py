"""How often is the right passage found with plain and with late chunking, and what do both cost?

Documents are in one language, questions in English: a sentence of the English text asks for the passage where
the document says the same, among all passages of all documents in that language.
"""

import argparse
import sys
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from app.engine.borders import Level, borders
from app.engine.embeddings import Chunking, Passage
from app.engine.encoder import Encoder, EncoderSettings
from benchmarks import checkpoint, machine
from benchmarks.bench import say
from benchmarks.chunk_costs import costs
from benchmarks.parallel import Book, Document, load
from benchmarks.services import ROOT

DEMO = Path("models/multilingual-e5-small")
SIZES = [(tokens, overlap) for tokens in (64, 128, 256) for overlap in (0, 32)]
QUESTION = 60  # the shortest question in characters: shorter ones ask for nothing in particular
SAMPLES = 2000  # of the bootstrap


def questions(documents: list[Document], count: int) -> list[tuple[str, int, int]]:
    """Up to `count` first sentences of parts, each with its document and part; only unique sentences."""
    first: dict[str, list[tuple[str, int, int]]] = {}
    for number, document in enumerate(documents):
        for part, (start, stop) in enumerate(document.parts):
            characters, levels = borders(document.text[start:stop])
            ends = characters[levels >= Level.SENTENCE]
            sentence = document.text[start : start + int(ends[0]) if len(ends) else stop].strip()
            first.setdefault(sentence, []).append((sentence, number, part))
    alone = [
        places[0] for sentence, places in first.items() if len(places) == 1 and len(sentence) >= QUESTION
    ]
    return alone if len(alone) <= count else Random(20).sample(alone, count)


def ranks(
    vectors: np.ndarray,
    passages: list[Passage],
    asked: np.ndarray,
    answers: list[tuple[int, tuple[int, int]]],
) -> np.ndarray:
    """The ranks, from 1, of each question's first right passage and right document. (2, questions)

    A passage is right if it overlaps the part that was asked for by half of the shorter of the two.
    """
    texts = np.array([passage.text for passage in passages])
    starts = np.array([passage.start for passage in passages])
    stops = np.array([passage.stop for passage in passages])
    found = []
    for scores, (text, (start, stop)) in zip(asked @ vectors.T, answers, strict=True):
        shared = np.minimum(stops, stop) - np.maximum(starts, start)
        right = (texts == text) & (shared * 2 >= np.minimum(stops - starts, stop - start))
        best = np.array([scores[texts == each].max() for each in np.unique(texts)])
        found.append(
            (
                1 + int((scores > scores[right].max()).sum()),
                1 + int((best > scores[texts == text].max()).sum()),
            )
        )
    return np.array(found).T


def quality(
    encoder: Encoder, books: dict[str, Book], sizes: list[tuple[int, int]], documents: int, count: int
) -> list[dict[str, Any]]:
    """One row per collection, size and overlap: plain and late chunking."""
    rows = []
    for name, book in books.items():
        asking, *languages = book
        total = len(book[asking])
        kept = sorted(Random(20).sample(range(total), min(documents, total)))
        asked = questions([book[asking][number] for number in kept], count)
        vectors = encoder.encode([question for question, _, _ in asked]).dense
        assert vectors is not None
        for size, overlap in sizes:
            by_way: dict[bool, np.ndarray] = {}
            passages = 0
            for late in (False, True):
                places = []
                for language in languages:
                    those = [book[language][number] for number in kept]
                    chunking = Chunking(size, overlap, late)
                    found = encoder.encode([one.text for one in those], chunk=chunking)
                    assert found.dense is not None
                    answers = [(number, those[number].parts[part]) for _, number, part in asked]
                    places.append(ranks(found.dense, found.passages, vectors, answers))
                    passages += 0 if late else len(found.passages)
                by_way[late] = np.concatenate(places, axis=1)
            row = {"collection": name, "tokens": size, "overlap": overlap}
            row |= {"documents": len(kept) * len(languages), "passages": passages}
            rows.append(row | compared(by_way[False], by_way[True], len(languages)))
            say(str(rows[-1]))
    return rows


def compared(plain: np.ndarray, late: np.ndarray, languages: int) -> dict[str, Any]:
    """Recall and reciprocal rank of both, and a 95 % bootstrap interval of their difference.

    It resamples questions, each with its answers in all languages, because those are not independent.
    """
    measures = {
        "recall@1": lambda places: places[0] <= 1,
        "recall@10": lambda places: places[0] <= 10,
        "mrr": lambda places: 1 / places[0],
        "document@1": lambda places: places[1] <= 1,
    }
    random = np.random.default_rng(20)
    count = plain.shape[1] // languages
    chosen = random.integers(count, size=(SAMPLES, count))
    row: dict[str, Any] = {"questions": plain.shape[1]}
    for name, measure in measures.items():
        by_question = [
            np.asarray(measure(places), dtype=float).reshape(languages, count).mean(0)
            for places in (plain, late)
        ]
        gains = (by_question[1] - by_question[0])[chosen].mean(1)
        intervals = [np.percentile(values[chosen].mean(1), [2.5, 97.5]) for values in by_question]
        row[name] = {
            "plain": _figures(by_question[0].mean(), intervals[0]),
            "late": _figures(by_question[1].mean(), intervals[1]),
            "gain": _figures(
                by_question[1].mean() - by_question[0].mean(), np.percentile(gains, [2.5, 97.5])
            ),
        }
    return row


def _figures(value: float, interval: np.ndarray) -> list[float]:
    """The value, and the interval's ends."""
    return [round(float(figure), 3) for figure in (value, *interval)]


def table(rows: list[dict[str, Any]]) -> str:
    """The table for people."""
    lines = []
    for name, group in groupby(rows, key=lambda row: row["collection"]):
        lines += [
            "",
            f"{name:<14}tokens  overlap  passages   recall@1  late   gain (95 %)            @10  late"
            "    MRR  late  document@1  late",
        ]
        for row in group:
            one, ten, mrr, document = (row[measure] for measure in row if isinstance(row[measure], dict))
            gain, low, high = one["gain"]
            lines.append(
                f"{'':<14}{row['tokens']:>6}{row['overlap']:>9}{row['passages']:>10}"
                f"{one['plain'][0]:>11.3f}{one['late'][0]:>6.3f}{gain:>+8.3f} ({low:+.3f} to {high:+.3f})"
                f"{ten['plain'][0]:>8.3f}{ten['late'][0]:>6.3f}{mrr['plain'][0]:>7.3f}{mrr['late'][0]:>6.3f}"
                f"{document['plain'][0]:>12.3f}{document['late'][0]:>6.3f}"
            )
    return "\n".join(lines)


def main() -> None:
    options = _options()
    threads = machine.cpu_budget()
    report: dict[str, Any] = machine.describe()
    encoder = Encoder(EncoderSettings(DEMO, threads=threads, precision=options.precision))
    encoder.load()
    report["quality"] = {"model": DEMO.name, "precision": encoder.info.precision}
    books = load(options.texts)
    report["costs"] = {DEMO.name: costs(encoder, books, options.rounds)}
    if not options.costs_only:
        report["quality"]["rows"] = quality(encoder, books, SIZES, options.documents, options.questions)
        print(table(report["quality"]["rows"]))
    encoder.close()
    if options.full.is_dir():
        limited = EncoderSettings(
            options.full, options.max_tokens, threads=threads, precision=options.precision
        )
        encoder = Encoder(limited)
        encoder.load()
        report["costs"][options.full.name] = costs(encoder, books, options.rounds)
        encoder.close()
    report["broken"] = [
        f"{model}, {row['of']}: {row['ratio']} times {row['beside']}"
        for model, rows in report["costs"].items()
        for row in rows
        if row["ratio"] > row["at_most"]
    ]
    machine.conclude(report, "chunks", options.save)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", type=Path, default=ROOT / ".venv" / "parallel" / "texts.json")
    parser.add_argument("--documents", type=int, default=16, help="of each collection (%(default)s)")
    parser.add_argument("--questions", type=int, default=300, help="for each collection (%(default)s)")
    parser.add_argument("--precision", default="auto", help="%(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="how often costs are measured (%(default)s)")
    parser.add_argument("--costs-only", action="store_true", help="no questions")
    parser.add_argument(
        "--full", type=Path, default=checkpoint.DEFAULT, help="a full-size model (%(default)s)"
    )
    parser.add_argument("--max-tokens", type=int, default=1024, help="that it may read (%(default)s)")
    parser.add_argument("--save", action="store_true", help="keep the figures under benchmarks/results")
    options = parser.parse_args()
    if not options.texts.is_file():
        sys.exit(f"{options.texts} is not there: `make bench-chunks` makes it")
    return options


if __name__ == "__main__":
    main()
