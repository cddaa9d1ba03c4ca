"""What a precision costs each language and pair of languages: means in percent, losses in points."""

from collections import defaultdict
from typing import Any, TypedDict

import numpy as np

from app.engine.embeddings import FloatArray
from app.evaluation.collection import Collection
from app.evaluation.metrics import METRICS, Values, interval, rank, score

KNOWN = 30.0  # percent of recall@1 in fp32, from which a model counts as knowing a language
MOST = 95  # percent of the languages, whose largest loss is told


class Metric(TypedDict):
    """A metric's mean, and what is lost of it."""

    fp32: float
    here: float
    loss: float
    interval: list[float]  # the loss's 95 % bootstrap interval


class Summary(TypedDict):
    """The loss of recall@1, over the languages that the model knows."""

    languages: int
    worst: str
    worst_loss: float
    most_loss: float  # of MOST percent of the languages
    mean_loss: float


def measure(collection: Collection, vectors: FloatArray) -> list[Values]:
    """The metrics of each task's queries."""
    return [
        score(rank(vectors[task.queries], vectors[task.passages]), task.judged) for task in collection.tasks
    ]


def compare(collection: Collection, exact: list[Values], here: list[Values]) -> dict[str, Any]:
    """A record of the collection: a summary, languages with the largest loss first, and pairs."""
    by_language: dict[str, list[int]] = defaultdict(list)
    for number, task in enumerate(collection.tasks):
        by_language[task.language].append(number)
    languages: dict[str, dict[str, Any]] = {}
    for name, numbers in by_language.items():
        units = np.concatenate([collection.tasks[number].units for number in numbers])
        before, after = (np.concatenate([of[number] for number in numbers]) for of in (exact, here))
        between = interval(before - after, units)
        languages[name] = {"queries": len(units)} | _metrics(before, after, between)
    order = sorted(languages, key=lambda name: (not is_known(languages[name]), -_lost(languages[name])))
    pairs: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(dict)
    for task, *both in zip(collection.tasks, exact, here, strict=True):
        pairs[task.language][task.into] = {
            name: [round(100 * float(values[:, column].mean()), 2) for values in both]
            for column, name in enumerate(METRICS)
        }
    return {
        "sample": collection.sample,
        "summary": _summary({name: languages[name] for name in order}),
        "languages": {name: languages[name] for name in order},
        "pairs": {name: pairs[name] for name in order},
    }


def is_known(language: dict[str, Any]) -> bool:
    return bool(language["recall@1"]["fp32"] >= KNOWN)


def _lost(language: dict[str, Any]) -> float:
    return float(language["recall@1"]["loss"])


def _metrics(exact: Values, here: Values, between: Values) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for column, name in enumerate(METRICS):
        means = [100 * float(values[:, column].mean()) for values in (exact, here)]
        found[name] = {
            "fp32": round(means[0], 2),
            "here": round(means[1], 2),
            "loss": round(means[0] - means[1], 2),
            "interval": [round(100 * float(end), 2) for end in between[:, column]],
        }
    return found


def _summary(languages: dict[str, dict[str, Any]]) -> Summary | None:
    """`languages`: the one with the largest loss first. None if the model knows none of them."""
    losses = {name: _lost(found) for name, found in languages.items() if is_known(found)}
    if not losses:
        return None
    values = list(losses.values())
    return {
        "languages": len(losses),
        "worst": next(iter(losses)),
        "worst_loss": values[0],
        "most_loss": round(float(np.percentile(values, MOST)), 2),
        "mean_loss": round(float(np.mean(values)), 2),
    }
