"""The example that the page shows where the model has no heads: its format, and what its numbers say."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FILE = Path(__file__).parent.parent / "app" / "static" / "page" / "recorded" / "example.json"
EXAMPLE = json.loads(FILE.read_text(encoding="utf-8"))
ITEMS = EXAMPLE["queries"] + EXAMPLE["passages"]
HYBRID = {"dense": 0.4, "lexical": 0.2, "multi-vector": 0.4}

Item = dict[str, Any]


def dense(item: Item) -> np.ndarray:
    return np.frombuffer(base64.b64decode(item["dense"]), "<f4")


def rows(item: Item) -> np.ndarray:
    """Of every token. (t, w)"""
    colbert = item["colbert"]
    numbers = np.frombuffer(base64.b64decode(colbert["data"]), np.int8)
    return numbers.reshape(colbert["shape"]).astype(np.float32) * colbert["scale"]


def weights(item: Item) -> dict[int, float]:
    return dict(zip(item["sparse"]["indices"], item["sparse"]["values"], strict=True))


def scores(query: Item, passage: Item) -> dict[str, float]:
    ours, theirs = weights(query), weights(passage)
    found = {
        "dense": float(dense(query) @ dense(passage)),
        "lexical": sum(weight * theirs.get(token, 0) for token, weight in ours.items()),
        "multi-vector": float((rows(query) @ rows(passage).T).max(axis=1).mean()),
    }
    return found | {"hybrid": sum(share * found[name] for name, share in HYBRID.items())}


def best(query: str, score: str) -> str:
    """The passage that this score puts first."""
    asked = next(item for item in EXAMPLE["queries"] if item["text"] == query)
    return max(EXAMPLE["passages"], key=lambda passage: scores(asked, passage)[score])["text"]


def test_it_says_what_it_was_recorded_with_and_is_small():
    assert EXAMPLE["about"]["model"] == "multilingual-e5-small"  # the page adds that it is not BGE-M3
    assert "trained for this example" in EXAMPLE["about"]["heads"]
    assert EXAMPLE["about"]["recorded"].startswith("20")
    assert FILE.stat().st_size < 120_000


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["text"][:20])
def test_an_item_has_what_the_page_reads(item):
    text, tokens = item["text"], item["tokens"]
    assert all(0 <= token["start"] <= token["end"] <= len(text) for token in tokens)
    assert len(item["colbert"]["shape"]) == 2
    assert item["colbert"]["shape"][0] == len(tokens)
    assert np.linalg.norm(rows(item), axis=1) == pytest.approx(1, abs=0.02)
    assert np.linalg.norm(dense(item)) == pytest.approx(1, abs=1e-5)
    indices = item["sparse"]["indices"]
    assert indices == sorted(set(indices))
    assert set(indices) <= {token["id"] for token in tokens}
    assert all(value > 0 for value in item["sparse"]["values"])


def test_a_content_word_weighs_more_than_a_function_word():
    words = {"the", "is", "and", "that", "der", "und", "le", "et", "la", "."}
    small: dict[str, float] = {}
    for item in EXAMPLE["passages"]:
        found = weights(item)
        greatest = max(found.values())
        for token in item["tokens"]:
            word = item["text"][token["start"] : token["end"]].strip().lower()
            if word in words:
                small[f"{word!r} in {item['text']}"] = found.get(token["id"], 0) / greatest
    assert len(small) > 10
    assert max(small.values()) < 0.5, small


def test_lexical_weights_find_the_code_that_dense_vectors_confuse():
    assert "BRK-7702" in best("BRK-7720", "dense")
    assert "BRK-7720" in best("BRK-7720", "lexical")
    assert "BRK-7720" in best("BRK-7720", "hybrid")


def test_a_question_in_another_language_is_answered_by_meaning_only():
    metro = "À quelle heure part le dernier métro de l'aéroport ?"
    assert all("地铁" in best(metro, score) for score in ("dense", "multi-vector", "hybrid"))
    assert "地铁" not in best(metro, "lexical")


def test_a_rare_name_is_found_by_every_score():
    assert all(
        "Skłodowska" in best("¿Quién era Skłodowska?", score) for score in ("dense", "lexical", "hybrid")
    )
