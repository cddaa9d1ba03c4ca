"""A collection of texts, and the searches in it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.evaluation.metrics import Grades

UNKNOWN = "-"  # the language of texts that do not say theirs


@dataclass(frozen=True)
class Task:
    """Queries in one language, and the passages among which they are searched."""

    language: str
    into: str  # the passages' language
    queries: NDArray[np.intp]  # places in the collection's texts
    passages: NDArray[np.intp]
    judged: Sequence[Grades]  # of each query, by the place in `passages`
    units: NDArray[np.intp]  # queries with the same number are the same text, in other tasks too


@dataclass(frozen=True)
class Collection:
    """Texts, and the tasks that use them."""

    name: str
    sample: str  # how much there is of it, in words
    texts: list[str]
    tasks: list[Task]


def is_asked(language: str, asked: Sequence[str]) -> bool:
    """Whether `asked` names a language, with or without what follows its slash; all if nothing is asked."""
    return not asked or language in asked or language.partition("/")[0] in asked
