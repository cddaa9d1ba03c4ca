"""A lexical and a multi-vector head: one linear layer each, as BGE-M3 has them, and how they are trained."""

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.record_example.corpus import Pair
from tools.record_example.states import Text

WIDTH = 64  # of a row of a multi-vector
BATCH = 32  # pairs: every passage is the wrong one for the other queries
STEPS = 2000
TEMPERATURE = 0.05  # of all scores, in the loss
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
        self.sparse = nn.Linear(width, 1)
        self.colbert = nn.Linear(width, WIDTH)
        nn.init.constant_(self.sparse.bias, 0.2)  # else a ReLU may start, and stay, at zero

    def weights(self, texts: Batch) -> Tensor:
        """Of every token. (b, t)"""
        return torch.relu(self.sparse(texts.states)[..., 0]) * texts.mask

    def rows(self, texts: Batch) -> Tensor:
        """Of every token, of length 1. (b, t, w)"""
        return functional.normalize(self.colbert(texts.states), dim=-1) * texts.mask[..., None]


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


def train(pairs: dict[str, list[Pair]], texts: dict[str, Text], width: int) -> Heads:
    """By InfoNCE: the right passage of each query against the others in the batch.

    Pairs in two languages share hardly a word, so the lexical head learns from the others only.
    """
    torch.manual_seed(21)
    choice = random.Random(21)
    heads = Heads(width)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=STEPS)
    right = torch.arange(BATCH)
    for step in range(STEPS):
        kind = choice.choice(list(pairs))
        chosen = choice.sample(pairs[kind], BATCH)
        queries = Batch.of([texts[pair.query] for pair in chosen], QUERY)
        passages = Batch.of([texts[pair.passage] for pair in chosen], PASSAGE)
        late = late_scores(queries, passages, heads.rows(queries), heads.rows(passages))
        loss = functional.cross_entropy(late / TEMPERATURE, right)
        if "translated" not in kind:
            ours, theirs = heads.weights(queries), heads.weights(passages)
            lexical = lexical_scores(queries, passages, ours, theirs)
            loss = loss + functional.cross_entropy(lexical / TEMPERATURE, right)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}: {kind}, loss {loss.item():.3f}", flush=True)
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
