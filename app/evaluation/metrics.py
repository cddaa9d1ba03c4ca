"""Metrics of ranked retrieval as trec_eval defines them, and bootstrap intervals of their differences."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from app.engine.embeddings import FloatArray

Values = NDArray[np.float64]
Grades = Mapping[int, int]  # a query's judgements: place of a passage -> grade; relevant if above 0

METRICS = ("recall@1", "recall@10", "ndcg@10")
DEPTH = 10  # of a ranking
BLOCK = 1024  # queries that are compared with all passages in one step
RESAMPLES = 1000
SEED = 22
INTERVAL = (2.5, 97.5)  # percentiles


def rank(queries: FloatArray, passages: FloatArray) -> NDArray[np.intp]:
    """The places of each query's best passages, the best first. (q, d), (p, d) -> (q, 10)"""
    depth = min(DEPTH, len(passages))
    found = []
    for start in range(0, len(queries), BLOCK):
        scores = queries[start : start + BLOCK] @ passages.T
        near = np.sort(np.argpartition(-scores, depth - 1, axis=1)[:, :depth], axis=1)
        order = np.argsort(-np.take_along_axis(scores, near, axis=1), axis=1, kind="stable")
        found.append(np.take_along_axis(near, order, axis=1))
    return np.concatenate(found)


def score(ranking: NDArray[np.intp], judged: Sequence[Grades]) -> Values:
    """The METRICS of each query, (q, 3). Every query must have a relevant passage.

    - recall@k: the share of a query's relevant passages that are among its first k (trec_eval's recall_k).
    - ndcg@10: trec_eval's ndcg_cut_10 (Järvelin & Kekäläinen 2002): DCG = sum of grade / log2(1 + rank),
      divided by the DCG of the best ranking of the judged passages.
    """
    gains = np.array(
        [[of.get(place, 0) for place in row] for row, of in zip(ranking.tolist(), judged, strict=True)]
    )
    gains = np.maximum(gains, 0)  # trec_eval counts grades below zero as not relevant
    relevant = np.array([sum(grade > 0 for grade in of.values()) for of in judged])
    discount = 1 / np.log2(np.arange(DEPTH) + 2)
    ideal = [sorted((grade for grade in of.values() if grade > 0), reverse=True)[:DEPTH] for of in judged]
    best = np.array([np.dot(grades, discount[: len(grades)]) for grades in ideal])
    hits = gains > 0
    return np.stack(
        [
            hits[:, 0] / relevant,
            hits.sum(axis=1) / relevant,
            gains @ discount[: gains.shape[1]] / best,
        ],
        axis=1,
    )


def interval(differences: Values, units: NDArray[np.intp]) -> Values:
    """The 95 % bootstrap interval of the mean of paired differences, for each column. (q, m) -> (2, m)

    Percentile bootstrap (Efron & Tibshirani 1993, ch. 13) with a fixed seed. Units are drawn, not queries:
    queries that are the same text in several tasks do not vary independently.
    """
    names, places = np.unique(units, return_inverse=True)
    totals = np.zeros((len(names), differences.shape[1] + 1))
    np.add.at(totals, places, np.column_stack([differences, np.ones(len(differences))]))
    draws = np.random.default_rng(SEED).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES
    )
    drawn = draws @ totals
    means: Values = drawn[:, :-1] / drawn[:, -1:]
    return np.percentile(means, INTERVAL, axis=0)
