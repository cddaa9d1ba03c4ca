"""What a view may ask of the application it runs in: its settings and its encoder, typed."""

from typing import Protocol, cast

from flask import current_app

from app.config import Settings
from app.engine.embeddings import Embeddings, Pooling


class Encoder(Protocol):
    """What this floor needs of an encoder; tests bring their own."""

    @property
    def ready(self) -> bool: ...

    @property
    def width(self) -> int: ...

    def encode(
        self, texts: list[str], *, pooling: Pooling | None = None, truncate: bool = True
    ) -> Embeddings: ...


def encoder() -> Encoder:
    return cast(Encoder, current_app.extensions["encoder"])


def settings() -> Settings:
    return cast(Settings, current_app.config["EMBED"])
