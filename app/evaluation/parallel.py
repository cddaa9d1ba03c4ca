"""Parallel texts: each language's texts are searched among those of the other languages."""

import json
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from app.evaluation.collection import Collection, Task, is_asked
from app.evaluation.errors import EvaluationError
from app.evaluation.metrics import Grades

SEED = 22
TEXTS, LANGUAGES = 150, 60  # of a file, if it is sampled

Column = dict[int, str]  # place of a text in its file -> text


def read_parallel(file: Path, languages: Sequence[str], whole: bool) -> Collection:
    """Read what tools/evaluation_data.py wrote; only queries in `languages`, and a sample unless `whole`."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        among = [str(name) for name in content["among"]]
        columns = {str(name): _distinct(texts) for name, texts in content["texts"].items()}
        everywhere = sorted(set.intersection(*(set(columns[name]) for name in among)))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise EvaluationError(f"{file} is not a file of parallel texts: make it again") from error
    asking = [name for name in columns if is_asked(name, languages)]
    places = {place for column in columns.values() for place in column}
    if not whole:
        choice = random.Random(SEED)
        if not languages:
            others = [name for name in asking if name not in among]
            asking = among + choice.sample(others, min(len(others), max(0, LANGUAGES - len(among))))
        places = set(choice.sample(everywhere, TEXTS)) if len(everywhere) > TEXTS else places
    used = {
        name: {place: text for place, text in column.items() if place in places}
        for name, column in columns.items()
        if name in among or name in asking
    }
    texts: list[str] = []
    at: dict[str, dict[int, int]] = {}  # language -> place in its file -> place in texts
    for name, column in used.items():
        at[name] = dict(zip(column, range(len(texts), len(texts) + len(column)), strict=True))
        texts += column.values()
    tasks = [
        task(name, other, at[name], at[other])
        for name in asking
        for other in among
        if name != other and used[name].keys() & used[other].keys()
    ]
    return Collection(file.stem, f"{len(places)} texts in {len(used)} languages", texts, tasks)


def task(language: str, into: str, queries: dict[int, int], passages: dict[int, int]) -> Task:
    """Search the texts that both languages have; the arguments give their places in the collection."""
    units = sorted(queries.keys() & passages.keys())
    return Task(
        language,
        into,
        np.array([queries[unit] for unit in units]),
        np.array([passages[unit] for unit in units]),
        _one_each(len(units)),
        np.array(units),
    )


@cache
def _one_each(count: int) -> list[Grades]:
    """The passage at the same place is the only relevant one."""
    return [{place: 1} for place in range(count)]


def _distinct(texts: list[str | None]) -> Column:
    """The texts of a language by their places, repetitions left out: no search can tell them apart."""
    first: dict[str, int] = {}
    for place, text in enumerate(texts):
        if text is not None and text.strip():
            first.setdefault(text, place)
    return {place: text for text, place in first.items()}
