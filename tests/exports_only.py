"""A digest of every kind of number that the exports of a model and a reranker give.

python -m tests.exports_only ENCODER RERANKER ENGINE PRECISION
"""

import hashlib
import sys
from pathlib import Path

from app.engine.encoder import Encoder, EncoderSettings
from app.engine.reranker import Reranker, RerankerSettings

TEXTS = ["Where is the library?", "Wo ist die Bibliothek?", "图书馆在哪里?"]


def digest(encoder: Path, reranker: Path, engine: str, precision: str) -> str:
    served = Encoder(EncoderSettings(encoder, threads=1, engine=engine, precision=precision))
    served.load()
    beside = Reranker(RerankerSettings(reranker), served)
    beside.load()
    found = served.encode(TEXTS, outputs=("dense", "sparse", "colbert"))
    arrays = [found.dense, *(part for lexical in found.sparse for part in lexical), *found.multi_vector]
    arrays += beside.score([(TEXTS[0], text) for text in TEXTS]).by_name.values()
    served.close()
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


if __name__ == "__main__":
    print(digest(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
