"""What a view gets from its application: the settings and the models, typed."""

from collections.abc import Callable, Collection, Iterable
from typing import Protocol, cast

from flask import current_app, request

from app.config import Settings
from app.engine.embeddings import (
    Chunking,
    Embeddings,
    Head,
    Load,
    ModelInfo,
    Output,
    Pooling,
    Priority,
    Scores,
    Side,
    Token,
    Weights,
)


class Client(Protocol):
    """Who sent a request."""

    late: bool  # whether its deadline has passed

    def gone(self) -> bool: ...


class Encoder(Protocol):
    """What the API needs of an encoder; tests bring their own."""

    def load(self) -> None: ...

    def close(self) -> None: ...

    @property
    def load_state(self) -> Load: ...

    @property
    def width(self) -> int: ...

    @property
    def heads(self) -> tuple[Head, ...]: ...

    def encode(
        self,
        texts: list[str],
        *,
        pooling: Pooling | None = None,
        outputs: Collection[Output] = ...,
        truncate: Side | None = "right",
        priority: Priority | None = None,
        gone: Callable[[], bool] | None = None,
        expect: Callable[[int], None] | None = None,
        patient: bool = False,
        chunk: Chunking | None = None,
        colbert_pool: int | None = None,
    ) -> Embeddings: ...

    def score(
        self,
        pairs: list[tuple[str, str]],
        weights: Weights = ...,
        *,
        pooling: Pooling | None = None,
        truncate: Side | None = "right",
        priority: Priority | None = None,
        gone: Callable[[], bool] | None = None,
        expect: Callable[[int], None] | None = None,
    ) -> Scores: ...

    def give_way(self) -> None: ...

    @property
    def info(self) -> ModelInfo: ...

    def space(self, pooling: Pooling | None = None) -> str: ...

    def tokenize(
        self, texts: list[str], special: bool, most: int, gone: Callable[[], bool] | None = None
    ) -> list[list[Token]]: ...

    def token_strings(self, ids: Iterable[int]) -> list[str]: ...


class Reranker(Protocol):
    """What the API needs of a cross-encoder."""

    def load(self) -> None: ...

    def close(self) -> None: ...

    @property
    def info(self) -> ModelInfo: ...

    def score(
        self,
        pairs: list[tuple[str, str]],
        *,
        truncate: Side | None = "right",
        priority: Priority | None = None,
        gone: Callable[[], bool] | None = None,
    ) -> Scores: ...

    def rank(
        self,
        query: str,
        passages: list[str],
        top: int,
        weights: Weights = ...,
        *,
        pooling: Pooling | None = None,
        truncate: Side | None = "right",
        priority: Priority | None = None,
        gone: Callable[[], bool] | None = None,
        expect: Callable[[int], None] | None = None,
    ) -> Scores: ...


def client() -> Client | None:
    """Who sent this request, where the server lets us look."""
    return cast(Client | None, request.environ.get("embed.client"))


def encoder() -> Encoder:
    return cast(Encoder, current_app.extensions["encoder"])


def reranker() -> Reranker | None:
    """The cross-encoder, where one is served."""
    return cast(Reranker | None, current_app.extensions["reranker"])


def settings() -> Settings:
    return cast(Settings, current_app.config["EMBED"])
