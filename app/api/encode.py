"""The one call under every protocol: the name checked, the texts encoded, the vectors cut."""

import re
from collections.abc import Callable, Collection
from dataclasses import replace

from flask import request
from marshmallow import ValidationError

from app.api.answer import expect
from app.api.context import client, encoder, settings
from app.api.errors import UnknownModel
from app.api.wire import cut
from app.engine.embeddings import DENSE, HYBRID, Embeddings, Output, Pooling, Priority, Scores, Weights

# Names under which people already know the model, accepted whatever the folder is called.
ALIASES = ("bge-m3", "BAAI/bge-m3")

# The urgency in a Priority header, 0 to 7 (RFC 9218, 4.1). Chromium sends 1 with what a page fetches, and
# Firefox 4: neither may put a person's question last.
URGENCY = re.compile(r"(?:^|,)\s*u=([0-7])\s*(?:[,;]|$)")
URGENCIES: dict[str, Priority] = {"0": "interactive", "1": "interactive", "6": "bulk", "7": "bulk"}


def served_name(asked: str | None) -> str:
    """The name to answer with: the one that was asked for, if it means the model served here."""
    served = settings().served_name
    if asked is None:
        return served
    if asked.removesuffix(":latest") not in (served, *ALIASES, *settings().model_aliases):
        raise UnknownModel(asked, served)
    return asked


def encode(
    texts: list[str],
    *,
    dimensions: int | None = None,
    pooling: Pooling | None = None,
    outputs: Collection[Output] = DENSE,
    truncate: bool = True,
    unit: bool = True,
    priority: Priority | None = None,
) -> Embeddings:
    """As Encoder.encode, with dense vectors of `dimensions` numbers; None or 0 keeps all.

    Without `unit` vectors keep the length that the model gave them. Where no `priority` is given the
    request's header may say it.
    """
    if dimensions and dimensions > encoder().width:
        raise ValidationError(
            {"dimensions": [f"must be at most {encoder().width}, the width of this model's vectors"]}
        )
    found = encoder().encode(
        texts,
        pooling=pooling,
        outputs=outputs,
        truncate=truncate,
        priority=priority or _header_priority(),
        gone=client_gone(),
        expect=expect,
    )
    if not unit:
        return replace(found, dense=(found.dense * found.lengths[:, None])[:, : dimensions or None])
    return replace(found, dense=cut(found.dense, dimensions))


def score(
    pairs: list[tuple[str, str]],
    weights: Weights = HYBRID,
    *,
    pooling: Pooling | None = None,
    truncate: bool = True,
    priority: Priority | None = None,
) -> Scores:
    """As Encoder.score; where no `priority` is given the request's header may say it."""
    return encoder().score(
        pairs,
        weights,
        pooling=pooling,
        truncate=truncate,
        priority=priority or _header_priority(),
        gone=client_gone(),
        expect=expect,
    )


def client_gone() -> Callable[[], bool] | None:
    """What tells whether who sent this request has left, where the server lets us look."""
    connection = client()
    return connection.gone if connection else None


def _header_priority() -> Priority | None:
    found = URGENCY.search(request.headers.get("Priority", ""))
    return URGENCIES.get(found[1]) if found else None
