"""Computes FlagEmbedding's outputs; test_parity.py runs this with the Python that has it.

JSON on stdin: `model`, a folder; `batches`, lists of texts; `pairs` and their `weights`; `output`, the
.npz to write, with `dense`, `ids`, `lexical` and `colbert` of each text under `<batch>/<text>/` and
the scores under `score/`. Or `reranker`, a folder, with `pairs` and `output`: the scores are under `raw` and
`normalized`.
"""

import json
import sys

import numpy as np
from FlagEmbedding import BGEM3FlagModel, FlagReranker

LIMIT = 8192  # FlagEmbedding itself would cut at 512


def main() -> None:
    task = json.load(sys.stdin)
    if "reranker" in task:
        compare(task)
    else:
        encode(task)


def compare(task: dict) -> None:
    """The scores of pairs by a cross-encoder, with FlagEmbedding's own limits."""
    reranker = FlagReranker(task["reranker"], use_fp16=False, devices="cpu", batch_size=1)
    scores = {
        name: np.array(reranker.compute_score(task["pairs"], normalize=normalize))
        for name, normalize in (("raw", False), ("normalized", True))
    }
    np.savez(task["output"], **scores)


def encode(task: dict) -> None:
    """Every output of each text, and the scores of pairs."""
    model = BGEM3FlagModel(
        task["model"],
        use_fp16=False,
        devices="cpu",
        query_max_length=LIMIT,
        passage_max_length=LIMIT,
        return_sparse=True,
        return_colbert_vecs=True,
    )
    arrays = {}
    for batch, texts in enumerate(task["batches"]):
        # All in one padded batch: FlagEmbedding cuts lists longer than its batch size.
        found = model.encode(texts, batch_size=len(texts), max_length=LIMIT)
        for text, lexical in enumerate(found["lexical_weights"]):
            weights = dict(sorted((int(token), weight) for token, weight in lexical.items()))
            arrays[f"{batch}/{text}/dense"] = found["dense_vecs"][text]
            arrays[f"{batch}/{text}/ids"] = np.array(list(weights), np.int64)
            arrays[f"{batch}/{text}/lexical"] = np.array(list(weights.values()), np.float32)
            arrays[f"{batch}/{text}/colbert"] = found["colbert_vecs"][text]
    # Pair by pair: the vectors of padding are zeros there, and a zero counts as a match where every
    # token's cosine is negative, so in a batch a pair's score would depend on the others.
    scores = model.compute_score(task["pairs"], batch_size=1, weights_for_different_modes=task["weights"])
    arrays |= {f"score/{name}": np.array(values) for name, values in scores.items()}
    np.savez(task["output"], **arrays)


if __name__ == "__main__":
    main()
