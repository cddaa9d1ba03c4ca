"""What every protocol calls: check the model's name, encode or compare texts, rank them."""

import math
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from flask import request
from marshmallow import ValidationError

from app.api.answer import expect, keep_room
from app.api.context import Reranker, client, encoder, reranker, settings
from app.api.errors import UnknownModel
from app.api.space import check_model, check_space
from app.config import plain_name
from app.engine.embeddings import (
    DENSE,
    HYBRID,
    Chunking,
    Embeddings,
    Output,
    Pooling,
    Priority,
    Scores,
    Side,
    Token,
    Weights,
)
from app.engine.encodings import cut
from app.engine.errors import TextTooLong

# Names that people know the model by, whatever its folder is called.
BGE_M3 = {"bge-m3", "baai/bge-m3", "bge-m3:567m"}
BGE_RERANKERS = ("bge-reranker-v2-m3", "bge-reranker-base", "bge-reranker-large")  # with BAAI/ or without
NOT_SPECIFIED = "default/not-specified"  # Infinity's client sends this when nobody names a model
# Prefixes that gateways put before a model's name to route the request.
GATEWAYS = {
    "azure",
    "cohere",
    "hosted_vllm",
    "huggingface",
    "infinity",
    "jina_ai",
    "litellm_proxy",
    "lm_studio",
    "nvidia_nim",
    "ollama",
    "openai",
    "voyage",
    "xinference",
}

# Fields of texts that are compared with one query; the query has a field of its own.
ONE_QUERY = ("texts", "documents")

MOST_TOKENS = 1 << 16  # in one answer
TOKEN_BYTES = 340  # of one in memory, its 70 bytes of JSON included

# The urgency in a Priority header, 0 to 7 (RFC 9218, 4.1). Chromium sends 1 with what a page fetches, and
# Firefox 4: neither may put a person's question last.
URGENCY = re.compile(r"(?:^|,)\s*u=([0-7])\s*(?:[,;]|$)")
URGENCIES: dict[str, Priority] = {"0": "interactive", "1": "interactive", "6": "bulk", "7": "bulk"}


def served_name(asked: str | None) -> str:
    """The name to answer with: the requested one, if it means the model that is served.

    BGE-M3's names are accepted only for weights of its shape. Raises UnknownModel for any other model.
    """
    served = settings().served_name
    if asked in (None, NOT_SPECIFIED, served):
        return served
    names = _spellings(asked)
    known = set(map(plain_name, (served, *settings().model_aliases)))
    if names & known or (names & BGE_M3 and encoder().info.is_bge_m3):
        return asked
    raise UnknownModel(asked, served)


def either_name(asked: str | None) -> tuple[str, bool]:
    """Like `served_name`, but the cross-encoder's name will do too; also says whether it is that."""
    if reranker() is None:
        return served_name(asked), False
    own = settings().reranker_served_name
    known = set(map(plain_name, (own, *settings().reranker_aliases)))
    for name in BGE_RERANKERS:
        spelled = {name, f"baai/{name}"}
        known |= spelled if known & spelled else set()
    if asked is not None and _spellings(asked) & known:
        return asked, True
    try:
        return served_name(asked), False
    except UnknownModel:
        raise UnknownModel(asked or "", settings().served_name, own) from None


def ranker(asked: str | None) -> tuple[str, bool]:
    """Like `either_name`; without a name, the cross-encoder if one is served."""
    if asked in (None, NOT_SPECIFIED) and reranker():
        return settings().reranker_served_name, True
    return either_name(asked)


def _spellings(asked: str) -> set[str]:
    """A name as given, and without a gateway's prefix."""
    name = plain_name(asked)
    gateway, _, rest = name.partition("/")
    return {name, rest} if gateway in GATEWAYS else {name}


def encode(
    texts: list[str],
    *,
    field: str = "input",
    dimensions: int | None = None,
    pooling: Pooling | None = None,
    outputs: Collection[Output] = DENSE,
    truncate: Side | None = "right",
    unit: bool = True,
    priority: Priority | None = None,
    chunk: Chunking | None = None,
    colbert_pool: int | None = None,
) -> Embeddings:
    """As Encoder.encode, with dense vectors of `dimensions` numbers; None or 0 keeps all.

    Without `unit` vectors keep the length that the model gave them. Where no `priority` is given the
    request's header may say it. A ValidationError names `field`, where the texts came from.
    """
    check_space(pooling)
    check_width(dimensions)
    with _named(field):
        found = encoder().encode(
            texts,
            pooling=pooling,
            outputs=outputs,
            truncate=truncate,
            priority=priority or _header_priority(),
            gone=_client_gone(),
            expect=expect,
            chunk=chunk,
            colbert_pool=colbert_pool,
        )
    return shaped(found, dimensions, unit)


def check_width(dimensions: int | None) -> None:
    """ValidationError where vectors do not have so many numbers."""
    if dimensions and dimensions > encoder().width:
        raise ValidationError(
            {"dimensions": [f"must be at most {encoder().width}, the width of this model's vectors"]}
        )


def shaped(found: Embeddings, dimensions: int | None, unit: bool) -> Embeddings:
    """The same with dense vectors truncated to `dimensions`, renormalised if `unit`."""
    if not unit:
        return replace(found, dense=(found.dense * found.lengths[:, None])[:, : dimensions or None])
    return replace(found, dense=cut(found.dense, dimensions))


def score(
    pairs: list[tuple[str, str]],
    weights: Weights = HYBRID,
    *,
    field: str = "pairs",
    pooling: Pooling | None = None,
    truncate: Side | None = "right",
    priority: Priority | None = None,
) -> Scores:
    """As Encoder.score; `field` and `priority` as for `encode`."""
    check_model(pooling)
    with _named(field):
        return encoder().score(
            pairs,
            weights,
            pooling=pooling,
            truncate=truncate,
            priority=priority or _header_priority(),
            gone=_client_gone(),
            expect=expect,
        )


def read_pairs(model: Reranker, pairs: list[tuple[str, str]], *, field: str, truncate: Side | None) -> Scores:
    """The cross-encoder's scores of pairs; `field` as for `encode`."""
    with _named(field):
        return model.score(pairs, truncate=truncate, priority=_header_priority(), gone=_client_gone())


def rank(
    model: Reranker,
    query: str,
    passages: list[str],
    top: int,
    *,
    field: str,
    pooling: Pooling | None,
    truncate: Side | None,
) -> Scores:
    """As `score`, and the cross-encoder's scores of the best `top` of them."""
    check_model(pooling)
    with _named(field):
        return model.rank(
            query,
            passages,
            top,
            pooling=pooling,
            truncate=truncate,
            priority=_header_priority(),
            gone=_client_gone(),
            expect=expect,
        )


def tokens(texts: list[str], special: bool) -> list[list[Token]]:
    """As Encoder.tokenize, at most MOST_TOKENS; raises Busy while other answers leave no memory for them."""
    keep_room(TOKEN_BYTES * min(MOST_TOKENS, sum(map(len, texts)) + 2 * len(texts)))
    return encoder().tokenize(texts, special, MOST_TOKENS, _client_gone())


def ranking(found: Scores) -> list[tuple[int, float, str]]:
    """Indices, scores and the scores' names by the score that takes in most, the best first.

    Passages that it left out, where it is NaN, come after the others, by the score before it. Equal ones keep
    their order.
    """
    last = found.by_name[found.best]
    left = np.isnan(last)
    ranked = [(int(index), float(last[index]), found.best) for index in np.argsort(-last, kind="stable")]
    if not left.any():
        return ranked
    before = list(found.by_name)[-2]
    scores = found.by_name[before]
    rest = [index for index in np.argsort(-scores, kind="stable") if left[index]]
    return ranked[: -len(rest)] + [(int(index), float(scores[index]), before) for index in rest]


def probability(logit: float) -> float:
    """The sigmoid of a cross-encoder's score, written so that no score overflows."""
    return 0.5 * (1 + math.tanh(logit / 2))


def _client_gone() -> Callable[[], bool] | None:
    """A function that says whether this request's client has hung up; None if the server cannot tell."""
    connection = client()
    return connection.gone if connection else None


@contextmanager
def _named(field: str) -> Iterator[None]:
    try:
        yield
    except TextTooLong as error:
        at_fault = "query" if error.query and field in ONE_QUERY else field
        raise ValidationError({at_fault: [str(error)]}) from None


def _header_priority() -> Priority | None:
    found = URGENCY.search(request.headers.get("Priority", ""))
    return URGENCIES.get(found[1]) if found else None
