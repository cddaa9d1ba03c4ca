"""Queries with judged passages: a file of pairs, or a folder in BEIR's layout."""

import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.evaluation.collection import UNKNOWN, Collection, Task, is_asked
from app.evaluation.errors import EvaluationError
from app.evaluation.metrics import Grades

SPLITS = ("test", "dev", "validation", "train")  # of BEIR; the first that is there counts

Query = tuple[str, Grades]  # its text and judgements
Judgements = dict[str, dict[str, int]]  # query's id -> passage's id -> grade


def read_pairs(file: Path, languages: Sequence[str]) -> Collection:
    """Lines of {"query": ..., "passage": ...}, perhaps with "language". All passages are searched.

    A query that stands in several lines has several relevant passages.
    """
    passages: dict[str, int] = {}
    found: dict[str, dict[str, dict[int, int]]] = defaultdict(dict)  # language -> query -> judgements
    for line, row in _rows(file):
        query, passage = (_text(row, name, file, line) for name in ("query", "passage"))
        language = row.get("language")
        judged = found[language if isinstance(language, str) and language else UNKNOWN]
        judged.setdefault(query, {})[passages.setdefault(passage, len(passages))] = 1
    asked = {language: list(of.items()) for language, of in found.items() if is_asked(language, languages)}
    return _collection(file.stem, list(passages), asked)


def read_beir(folder: Path, qrels: Path | None, languages: Sequence[str]) -> Collection:
    """corpus.jsonl and queries.jsonl (perhaps with "language"), judged by `qrels` or else qrels/*.tsv."""
    judgements = read_qrels(qrels or _split(folder))
    texts: list[str] = []
    places: dict[str, int] = {}
    for line, row in _rows(folder / "corpus.jsonl"):
        places[_id(row, folder / "corpus.jsonl", line)] = len(texts)
        texts.append(f"{row.get('title') or ''} {row.get('text') or ''}".strip())
    found: dict[str, list[Query]] = defaultdict(list)
    for line, row in _rows(folder / "queries.jsonl"):
        of = judgements.get(_id(row, folder / "queries.jsonl", line), {})
        grades = {places[name]: grade for name, grade in of.items() if name in places}
        language = row.get("language")
        name = language if isinstance(language, str) and language else UNKNOWN
        if any(grade > 0 for grade in grades.values()) and is_asked(name, languages):
            found[name].append((_text(row, "text", folder / "queries.jsonl", line), grades))
    if not found:
        raise EvaluationError(f"no query of {folder} has a relevant passage: are these its judgements?")
    return _collection(folder.resolve().name, texts, found)


def read_qrels(file: Path) -> Judgements:
    """Judgements in TREC's format (query 0 passage grade) or in BEIR's (query, passage, grade; a header)."""
    found: Judgements = defaultdict(dict)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{file} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        words = next(csv.reader([line], delimiter="\t"), []) if "\t" in line else line.split()
        if not words or (number == 1 and not words[-1].lstrip("-").isdecimal()):
            continue
        try:
            query, *_, passage, grade = words
            found[query][passage] = int(grade)
        except ValueError:
            raise EvaluationError(
                f"line {number} of {file} is neither in TREC's format (query 0 passage grade) "
                "nor in BEIR's (query passage grade)"
            ) from None
    return found


def _collection(name: str, passages: list[str], found: Mapping[str, Sequence[Query]]) -> Collection:
    """`found`: for each language its queries."""
    texts = list(passages)
    tasks = []
    for language, queries in found.items():
        places = np.arange(len(texts), len(texts) + len(queries))
        texts += [text for text, _ in queries]
        judged = [grades for _, grades in queries]
        tasks.append(Task(language, UNKNOWN, places, np.arange(len(passages)), judged, places))
    sample = f"{len(texts) - len(passages)} queries, {len(passages)} passages"
    return Collection(name, sample, texts, tasks)


def _split(folder: Path) -> Path:
    files = {file.stem: file for file in (folder / "qrels").glob("*.tsv")}
    name = next((split for split in SPLITS if split in files), None)
    if name is None:
        raise EvaluationError(f"{folder} has no qrels/test.tsv: --qrels names the file of judgements")
    return files[name]


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise EvaluationError(f"line {number} of {file} is not a JSON object")
                    yield number, row
    except OSError as error:
        raise EvaluationError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise EvaluationError(f"{file} is not JSON Lines in UTF-8: {error}") from error


def _text(row: dict[str, Any], name: str, file: Path, line: int) -> str:
    if not isinstance(value := row.get(name), str) or not value.strip():
        raise EvaluationError(f'line {line} of {file} has no "{name}"')
    return value


def _id(row: dict[str, Any], file: Path, line: int) -> str:
    value = row.get("_id", row.get("id"))
    if not isinstance(value, str | int):
        raise EvaluationError(f'line {line} of {file} has no "_id"')
    return str(value)
