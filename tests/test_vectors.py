"""Nobody changes vectors unknowingly: a few of them are stored, with the names of their spaces."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest

from app.engine.embeddings import Embeddings
from app.engine.encoder import Encoder

STORED = Path(__file__).parent / "data" / "vectors.json"
TEXTS = [
    "What is machine learning?",
    "BGE-M3 supports dense retrieval, lexical matching and multi-vector interaction.",
    "今天天气很好，我们去公园散步吧。",
    "Kí ni orúkọ rẹ? Mo ń gbé ní Èkó.",
    "def add(a, b): return a + b  # 2 + 2 = 4",
    "",
]
LONG = "Der schnelle braune Fuchs springt über den faulen Hund. " * 60  # longer than the demo model's limit
LEAST = 0.9999  # the cosine that equal names promise
# Two exports in int8 may differ by this much: they have different names.
LEAST_OF_EXPORTS = 0.999
CHANGED = (
    "vectors changed: if you mean it, raise this precision's number in NUMERICS (app/engine/space.py), and "
    "run pytest tests/test_vectors.py --save-vectors"
)


def test_dense_vectors_in_fp32_are_the_same_in_every_engine(demo, tiny, request):
    check(request, "demo fp32", demo)
    check(request, "tiny fp32", tiny)


def test_vectors_in_int8_are_the_same(load_encoder, demo_folder, tiny_folder, request):
    """On whatever processor, if the export is the same one; close to them if it was made elsewhere."""
    demo = load_encoder(demo_folder, precision="int8")
    if demo.info.engine != "native":
        pytest.skip("the native engine does not run here")
    check(request, "demo int8", demo)
    check(request, "tiny int8", load_encoder(tiny_folder, engine="native", precision="int8"))


def check(request, name: str, encoder: Encoder) -> None:
    """Compare an encoder's vectors with the stored ones, or store them."""
    found = computed(encoder)
    if request.config.getoption("save_vectors"):
        save(name, found)
        return
    expected = json.loads(STORED.read_text())[name]
    names = found["spaces"], expected["spaces"]
    least = LEAST if exports(names[0]) == exports(names[1]) else LEAST_OF_EXPORTS
    assert parts(names[0]) == parts(names[1]), (
        f"{names[1]} are stored: run pytest tests/test_vectors.py --save-vectors"
    )
    assert found["lexical"].keys() == expected["lexical"].keys()
    for kind in found["vectors"]:
        cosines = rows_cosine(*(decoded(each["vectors"][kind], encoder.width) for each in (found, expected)))
        assert cosines.min() >= least, f"{name}, {kind}: cosine {cosines.min():.6f}: {CHANGED}"
    for text, weights in found["lexical"].items():
        cosine = lexical_cosine(weights, expected["lexical"][text])
        assert cosine >= least, f"{name}, lexical weights of {text!r}: cosine {cosine:.6f}: {CHANGED}"


EXPORT = re.compile("-native-([0-9a-f]{6})")


def exports(spaces: list[str]) -> list[str]:
    return EXPORT.findall(" ".join(spaces))


def parts(spaces: list[str]) -> list[str]:
    """The names without digests: libraries of another version may write the same weights otherwise."""
    return [EXPORT.sub("-native", space.partition(".")[2]) for space in spaces]


def computed(encoder: Encoder) -> dict:
    """The vectors and lexical weights of TEXTS, and the mean vector of LONG, as they are stored."""
    outputs = ("dense", *encoder.heads)
    mean, cls = (encoder.encode(TEXTS, pooling=pooling, outputs=outputs) for pooling in ("mean", "cls"))
    vectors = {
        "mean": np.concatenate([mean.dense, encoder.encode([LONG], pooling="mean").dense]),
        "cls": cls.dense,
        **({"multi-vectors": np.concatenate(mean.multi_vector)} if mean.multi_vector else {}),
    }
    return {
        "spaces": [encoder.space("mean"), encoder.space("cls")],
        "vectors": {kind: encoded(rows) for kind, rows in vectors.items()},
        "lexical": lexical(mean),
    }


def lexical(found: Embeddings) -> dict[str, dict[str, float]]:
    """Each text's weights by token id."""
    return {
        text: {str(token): round(float(weight), 5) for token, weight in zip(*weights, strict=True)}
        for text, weights in zip(TEXTS, found.sparse, strict=False)
    }


def encoded(rows: np.ndarray) -> str:
    return base64.b64encode(rows.astype("<f2").tobytes()).decode()


def decoded(rows: str, width: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(rows), "<f2").reshape(-1, width).astype(np.float32)


def rows_cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    assert one.shape == other.shape
    return (one * other).sum(axis=1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))


def lexical_cosine(one: dict[str, float], other: dict[str, float]) -> float:
    tokens = sorted({*one, *other})
    if not tokens:
        return 1.0
    rows = (np.array([[weights.get(token, 0.0) for token in tokens]]) for weights in (one, other))
    return float(rows_cosine(*rows)[0])


def save(name: str, found: dict) -> None:
    stored = json.loads(STORED.read_text()) if STORED.is_file() else {}
    STORED.parent.mkdir(exist_ok=True)
    content = json.dumps(dict(sorted((stored | {name: found}).items())), indent=1, ensure_ascii=False)
    STORED.write_text(content + "\n")
