"""Token pooling with scipy, as in PyLate, but with means of length 1; run by test_parity.py.

Arguments: an .npz of multi-vectors to read, and one to write, with `<name>/<factor>` for each factor.
"""

import sys

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage


def pooled(rows: np.ndarray, factor: int) -> np.ndarray:
    """(t, d) -> (max(1, t // factor), d), with rows of length 1, in the order of each cluster's first row."""
    clusters = max(1, len(rows) // factor)
    if clusters >= len(rows):
        return rows
    distances = 1 - rows @ rows.T
    merges = linkage(distances[np.triu_indices(len(rows), k=1)], method="ward")
    labels = fcluster(merges, t=clusters, criterion="maxclust")
    _, firsts = np.unique(labels, return_index=True)
    means = np.stack([rows[labels == labels[first]].mean(axis=0) for first in sorted(firsts)])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def main() -> None:
    source, target = sys.argv[1:]
    with np.load(source) as given:
        found = {
            f"{name}/{factor}": pooled(rows, factor) for name, rows in given.items() for factor in range(2, 9)
        }
    np.savez(target, **found)


if __name__ == "__main__":
    main()
