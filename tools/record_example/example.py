"""What the page shows, as JSON: texts with their tokens and everything that was computed of them."""

import base64
import json
from typing import Any

import numpy as np

from tools.record_example.heads import Heads, rows_of, sparse_of
from tools.record_example.states import Text
from tools.record_example.texts import PASSAGES, QUERIES

MODEL = "multilingual-e5-small"
HEADS = (
    "a lexical head and a multi-vector head of 64 dimensions, trained for this example by a few minutes of"
    " contrastive learning on verses of the Quran, manual pages and everyday texts; weaker than BGE-M3's own"
)
DECIMALS = 4


def item(heads: Heads, language: str, text: str, read: Text) -> dict[str, Any]:
    ids, weights = sparse_of(heads, read)
    rows = rows_of(heads, read)
    scale = float(np.abs(rows).max() / 127)
    tokens = zip(read.ids.tolist(), read.starts.tolist(), read.ends.tolist(), strict=True)
    return {
        "text": text,
        "language": language,
        "tokens": [{"id": number, "start": start, "end": end} for number, start, end in tokens],
        "dense": base64.b64encode(read.dense.astype("<f4").tobytes()).decode(),
        "sparse": {
            "indices": ids.tolist(),
            "values": [round(weight, DECIMALS) for weight in weights.tolist()],
        },
        "colbert": {
            "shape": list(rows.shape),
            "scale": scale,
            "data": base64.b64encode(np.rint(rows / scale).astype(np.int8).tobytes()).decode(),
        },
    }


def example(heads: Heads, texts: dict[str, Text], recorded: str) -> dict[str, Any]:
    return {
        "about": {"model": MODEL, "heads": HEADS, "recorded": recorded},
        "queries": [item(heads, language, text, texts[text]) for language, text in QUERIES],
        "passages": [item(heads, language, text, texts[text]) for language, text in PASSAGES],
    }


def written(content: dict[str, Any]) -> str:
    """Compact, but a text on a line of its own."""
    parts = []
    for name, value in content.items():
        rows = value if isinstance(value, list) else [value]
        lines = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
        parts.append(f'"{name}":' + (f"[\n{lines}\n]" if isinstance(value, list) else lines))
    return "{" + ",\n".join(parts) + "}\n"
