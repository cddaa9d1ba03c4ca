"""How 8 bits and two stages change a real cross-encoder's ranking of English manual pages for questions."""

from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq

from app.engine.export import read_json
from app.engine.measure import MEASURED

REAL = Path("models/ms-marco-MiniLM-L-12-v2")
DEMO = Path("models/multilingual-e5-small")
QUESTIONS = (
    "How do I convert a text file from one character encoding to another?",
    "Which file lists the name servers that resolve host names?",
    "How can a process get random bytes from the kernel?",
    "How do I write data to a file descriptor?",
    "What keeps processes from seeing each other's network interfaces?",
    "Where is the time zone of a program configured?",
)
PASSAGES, TOP, BEST = 200, 20, 10
CHARACTERS = 500  # of a page


class Part(Protocol):
    """A reranker in a process of its own."""

    def score(self, query: str, passages: list[str]) -> dict[str, Any]:
        """Scores and seconds."""

    def rank(self, query: str, passages: list[str], top: int) -> dict[str, Any]:
        """Scores in two stages; None for a passage that the cross-encoder did not read."""


def quality(model: Path, parts: dict[str, Part], pages: Path) -> dict[str, Any]:
    """Each precision compared with fp32, and two stages with the cross-encoder for all passages."""
    passages = english(pages)
    found = {name: [part.score(question, passages) for question in QUESTIONS] for name, part in parts.items()}
    scores = {name: np.array([one["scores"] for one in each]) for name, each in found.items()}
    staged = [parts["fp32"].rank(question, passages, TOP) for question in QUESTIONS]
    first = np.array([[-np.inf if score is None else score for score in one["scores"]] for one in staged])
    return {
        "model": model.name,
        "precisions": {name: compared(scores["fp32"], scores[name]) for name in parts if name != "fp32"},
        "measured": {
            name: value
            for file in sorted(model.glob(f"native/*/{MEASURED}"))
            for name, value in read_json(file).items()
        },
        "two_stages": {
            "passages": len(passages),
            "top": TOP,
            "top10_kept": kept(scores["fp32"], first),
        },
    }


def english(pages: Path) -> list[str]:
    """Distinct beginnings of pages."""
    rows = pq.read_table(pages).to_pylist()
    texts = [row["text"][:CHARACTERS] for row in rows if row["language"] == "en"]
    return list(dict.fromkeys(texts))[:PASSAGES]


def compared(right: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """Compare the scores of two precisions. (questions, passages)"""
    pairs = np.array(list(combinations(range(right.shape[1]), 2))).T
    signs = [np.sign(scores[:, pairs[0]] - scores[:, pairs[1]]) for scores in (right, found)]
    return {
        "pairs": right.size,
        "correlation": round(float(np.corrcoef(right.ravel(), found.ravel())[0, 1]), 6),
        "order_kept": round(float((signs[0] == signs[1]).mean()), 4),
        "top10_kept": kept(right, found),
        "largest_difference": round(float(np.abs(right - found).max()), 4),
    }


def kept(right: np.ndarray, found: np.ndarray) -> float:
    """The share of the ten best that is the same, as a mean over the questions. (questions, passages)"""
    best = [np.argsort(-scores, axis=1, kind="stable")[:, :BEST] for scores in (right, found)]
    return round(float(np.mean([len(set(a) & set(b)) / BEST for a, b in zip(*best, strict=True)])), 3)
