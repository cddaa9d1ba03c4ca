"""A lexical and a multi-vector head: one linear layer each, as BGE-M3 has them, and how they are trained."""

import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.record_example.corpus import Pair
from tools.record_example.states import Text

WIDTH = 64  # of a row of a multi-vector
BATCH = 32  # pairs: every passage is the wrong one for the other queries
LATE_STEPS, LEXICAL_STEPS = 300, 500
LATE_TEMPERATURE, LEXICAL_TEMPERATURE = 0.05, 0.02  # of the scores, in the loss
COMMON = 0.1  # how much a weight costs on tokens that many texts have
QUERY, PASSAGE = 48, 96  # tokens, in training


@dataclass(frozen=True)
class Batch:
    """Texts as one block."""

    ids: Tensor  # (b, t)
    states: Tensor  # (b, t, d)
    mask: Tensor  # (b, t)

    @classmethod
    def of(cls, texts: list[Text], most: int) -> "Batch":
        ids = [torch.from_numpy(text.ids[:most]) for text in texts]
        states = [text.states[:most].float() for text in texts]
        pad = nn.utils.rnn.pad_sequence
        mask = pad([torch.ones(len(one)) for one in ids], batch_first=True)
        return cls(pad(ids, batch_first=True), pad(states, batch_first=True), mask)


class Heads(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.deviation = nn.Parameter(torch.ones(width), requires_grad=False)
        self.sparse = nn.Linear(width, 1)
        self.colbert = nn.Linear(width, WIDTH)
        nn.init.zeros_(self.sparse.weight)  # every token counts alike at first
        nn.init.constant_(self.sparse.bias, 0.2)

    def standardise(self, texts: Iterable[Text]) -> None:
        """Make the states' numbers alike in size, so that training goes fast; the layers stay linear."""
        states = torch.cat([text.states for text in texts]).float()
        self.mean.copy_(states.mean(dim=0))
        self.deviation.copy_(states.std(dim=0))

    def _standard(self, texts: Batch) -> Tensor:
        return (texts.states - self.mean) / self.deviation

    def weights(self, texts: Batch) -> Tensor:
        """Of every token. (b, t)"""
        return torch.relu(self.sparse(self._standard(texts))[..., 0]) * texts.mask

    def rows(self, texts: Batch) -> Tensor:
        """Of every token, of length 1. (b, t, w)"""
        return functional.normalize(self.colbert(self._standard(texts)), dim=-1) * texts.mask[..., None]


def lexical_scores(queries: Batch, passages: Batch, ours: Tensor, theirs: Tensor) -> Tensor:
    """Of each query with each passage: the products of the weights that they share, summed. (q, p)"""
    known, places = torch.unique(
        torch.cat([queries.ids.flatten(), passages.ids.flatten()]), return_inverse=True
    )
    split = queries.ids.numel()

    def table(weights: Tensor, at: Tensor) -> Tensor:
        flat = (torch.arange(len(weights))[:, None] * len(known) + at.view(weights.shape)).flatten()
        empty = torch.zeros(len(weights) * len(known))
        return empty.scatter_reduce(0, flat, weights.flatten(), "amax").view(len(weights), -1)

    return table(ours, places[:split]) @ table(theirs, places[split:]).T


def late_scores(queries: Batch, passages: Batch, ours: Tensor, theirs: Tensor) -> Tensor:
    """Of each query with each passage: the mean over its tokens of the best inner product. (q, p)"""
    products = torch.einsum("qtw,psw->qpts", ours, theirs)
    products = products - 4 * (1 - passages.mask)[None, :, None, :]
    best = products.max(dim=-1).values * queries.mask[:, None, :]
    return best.sum(dim=-1) / queries.mask.sum(dim=-1)[:, None]


def common(ids: Tensor, weights: Tensor) -> Tensor:
    """The sum over token ids of the square of their mean weight (SPLADE's FLOPS regulariser)."""
    known, places = torch.unique(ids, return_inverse=True)
    sums = torch.zeros(len(known)).index_add(0, places.flatten(), weights.flatten())
    return (sums / len(ids)).square().sum()


def train(pairs: dict[str, list[Pair]], texts: dict[str, Text], width: int) -> Heads:
    """By InfoNCE: the right passage of each query against the others in the batch."""
    torch.manual_seed(21)
    heads = Heads(width)
    heads.standardise(texts[pair.passage] for of in pairs.values() for pair in of)

    # A batch in one language, or its function words would tell the right passage from the others.
    monolingual: dict[tuple[str, str], list[Pair]] = {}
    for kind, of in pairs.items():
        for pair in of:
            if pair.language:
                monolingual.setdefault((kind, pair.language), []).append(pair)
    enough = [of for of in monolingual.values() if len(of) >= BATCH]

    def lexical_loss(queries: Batch, passages: Batch) -> Tensor:
        ours, theirs = heads.weights(queries), heads.weights(passages)
        scores = lexical_scores(queries, passages, ours, theirs) / LEXICAL_TEMPERATURE
        cost = common(queries.ids, ours) + common(passages.ids, theirs)
        return functional.cross_entropy(scores, torch.arange(BATCH)) + COMMON * cost

    def late_loss(queries: Batch, passages: Batch) -> Tensor:
        scores = late_scores(queries, passages, heads.rows(queries), heads.rows(passages))
        return functional.cross_entropy(scores / LATE_TEMPERATURE, torch.arange(BATCH))

    for head, steps, kinds, loss in (
        (heads.sparse, LEXICAL_STEPS, enough, lexical_loss),
        (heads.colbert, LATE_STEPS, list(pairs.values()), late_loss),
    ):
        choice = random.Random(21)
        optimizer = torch.optim.AdamW(head.parameters(), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
        for step in range(steps):
            chosen = choice.sample(choice.choice(kinds), BATCH)
            queries = Batch.of([texts[pair.query] for pair in chosen], QUERY)
            passages = Batch.of([texts[pair.passage] for pair in chosen], PASSAGE)
            optimizer.zero_grad()
            found = loss(queries, passages)
            found.backward()
            optimizer.step()
            schedule.step()
            if step % 100 == 0:
                print(f"{loss.__name__}, step {step}: {found.item():.3f}", flush=True)
    return heads.eval()


def sparse_of(heads: Heads, text: Text) -> tuple[np.ndarray, np.ndarray]:
    """Token ids, ascending, and their weights over 0: the greatest of each."""
    with torch.inference_mode():
        weights = heads.weights(Batch.of([text], len(text.ids)))[0].numpy()
    ids, places = np.unique(text.ids, return_inverse=True)
    most = np.zeros(len(ids), np.float32)
    np.maximum.at(most, places, weights)
    return ids[most > 0], most[most > 0]


def rows_of(heads: Heads, text: Text) -> np.ndarray:
    with torch.inference_mode():
        return heads.rows(Batch.of([text], len(text.ids)))[0].numpy()
