"""A loaded encoder: from sequences of tokens to the outputs of their texts."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from app.engine.backends import Backend
from app.engine.batcher import Batcher
from app.engine.cache import Cache
from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import Embeddings, Output, Pooling, count_numbers, joined
from app.engine.errors import NotFinite
from app.engine.heads import normalize
from app.engine.job import Caller
from app.engine.model import Model
from app.engine.outputs import dense_rows, lexical, multi_vectors, wanted
from app.engine.policy import priority_of
from app.engine.token_pooling import count_pooled, groups, pool
from app.engine.tokenizer import Tokenizer, Tokens


@dataclass(frozen=True)
class Loaded:
    """Everything that an encoder keeps in memory."""

    checkpoint: Checkpoint
    tokenizer: Tokenizer
    backend: Backend
    model: Model
    batcher: Batcher
    cache: Cache

    def count(self, tokens: Tokens, outputs: Collection[Output], factor: int | None = None) -> int:
        """The most numbers that these outputs hold; `factor`: if multi-vectors are pooled."""
        width = self.checkpoint.width
        if factor is None:
            return count_numbers(tokens.sizes, width, outputs)
        return count_pooled(tokens.sizes, width, outputs, factor, bool(tokens.places))

    def compute(
        self,
        tokens: Tokens,
        pooling: Pooling,
        outputs: Collection[Output],
        caller: Caller,
        admitted: bool = False,
    ) -> Embeddings:
        """Compute `outputs` of these tokens; raises what Batcher.compute raises."""
        kinds = wanted(tokens, pooling, outputs)
        compute = partial(self.batcher.compute, self.model, caller=caller, admitted=admitted)
        try:
            arrays, spent, cached = self.cache.compute(tokens.sequences, kinds, compute)
        except NotFinite as error:
            raise NotFinite(tokens.texts_of(error.indices)) from None
        found = [dict(zip(of, values, strict=False)) for of, values in zip(kinds, arrays, strict=True)]
        pooled = np.empty((0, self.checkpoint.width), np.float32)
        if "dense" in outputs and found:
            pooled = dense_rows(tokens, found, pooling)
        return Embeddings(
            dense=normalize(pooled),
            lengths=np.linalg.norm(pooled, axis=1),
            sparse=lexical(tokens, found, self.tokenizer.special_ids) if "sparse" in outputs else [],
            multi_vector=multi_vectors(tokens, found) if "colbert" in outputs else [],
            token_counts=tokens.counts,
            truncated=tokens.truncated,
            timings=spent,
            passages=tokens.passages,
            cached=cached,
        )

    def compute_pooled(
        self,
        tokens: Tokens,
        pooling: Pooling,
        outputs: Collection[Output],
        caller: Caller,
        factor: int,
        pause: Callable[[], None],
    ) -> Embeddings:
        """Like `compute`, but pools multi-vectors, see token_pooling."""
        self.batcher.check(tokens.total, caller)
        caller.priority = priority_of(tokens.total, caller.priority)  # the last group may be small
        parts = []
        for group in groups(tokens.sizes, bool(tokens.places)):
            part = tokens.part(group)
            try:
                found = self.compute(part, pooling, outputs, caller, admitted=True)
            except NotFinite as error:
                texts = error.indices if part.passages else [group[index] for index in error.indices]
                raise NotFinite(texts) from None
            parts.append(replace(found, multi_vector=pool(found.multi_vector, factor, pause)))
        return replace(joined(parts), truncated=tokens.truncated)
