"""The inputs of linear layers on the calibration texts: a forward pass in fp32, layer by layer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import FloatArray
from app.engine.export import HELD_OUT, HELD_OUT_CLS
from app.engine.texts import calibration_sequences
from app.engine.weights import Weights


@dataclass(frozen=True)
class Inputs:
    """Statistics of one linear layer's k inputs over all calibration tokens x."""

    largest: FloatArray  # (k,), max |x|
    moments: FloatArray  # (k, k), mean of x x^T


class Calibration:
    """The forward pass of all texts in fp32, one layer at a time; call `layer` in the order of layers."""

    def __init__(self, checkpoint: Checkpoint, weights: Weights) -> None:
        self._checkpoint = checkpoint
        self._weights = weights
        texts = calibration_sequences(checkpoint, held_out=False)
        self._seen = sum(map(len, texts))  # calibration tokens; the held-out ones follow them
        self._held_out = len(texts)
        texts = texts + calibration_sequences(checkpoint, held_out=True)
        self._lengths = [len(text) for text in texts]
        d = checkpoint.width
        words = self._tensor("embeddings.word_embeddings.weight", checkpoint.vocabulary, d)
        table = torch.from_numpy(weights.position_table())
        places = np.concatenate([checkpoint.positions_of(text) for text in texts])
        ids = np.concatenate(texts) % checkpoint.vocabulary
        embedded = words[torch.from_numpy(ids)] + table[torch.from_numpy(places)]
        self._states = self._norm(embedded, "embeddings.LayerNorm")  # (m, d)

    def layer(self, number: int) -> dict[str, Inputs]:
        """Compute the next layer; returns the inputs of its linear layers by their names in an export."""
        d, inner, name = self._checkpoint.width, self._checkpoint.inner, f"encoder.layer.{number}."
        x = self._states
        seen = {"joined": self._inputs(x)}
        parts = [self._linear(x, f"{name}attention.self.{part}", d, d) for part in ("query", "key", "value")]
        attended = self._attend(torch.stack(parts, dim=1))
        seen["attended"] = self._inputs(attended)
        x = x + self._linear(attended, f"{name}attention.output.dense", d, d)
        x = self._norm(x, f"{name}attention.output.LayerNorm")
        seen["grown"] = self._inputs(x)
        grown = functional.gelu(self._linear(x, f"{name}intermediate.dense", inner, d))
        seen["shrunk"] = self._inputs(grown)
        x = x + self._linear(grown, f"{name}output.dense", d, inner)
        self._states = self._norm(x, f"{name}output.LayerNorm")
        return seen

    def held_out(self) -> dict[str, FloatArray]:
        """What to keep of the held-out texts, by file name; call it after all layers."""
        rows = self._states.split(self._lengths)[self._held_out :]
        if self._checkpoint.labels:
            head = self._weights.scoring_head()
            return {HELD_OUT: np.stack([head(row[0].numpy()) for row in rows])}
        return {
            HELD_OUT: np.stack([row.mean(dim=0).numpy() for row in rows]),
            HELD_OUT_CLS: np.stack([row[0].numpy() for row in rows]),
        }

    def _attend(self, projected: torch.Tensor) -> torch.Tensor:
        """softmax(q k^T / sqrt(d / h)) v for each text. (m, 3, d) -> (m, d)"""
        heads = self._checkpoint.attention_heads
        found = []
        for text in projected.split(self._lengths):
            q, k, v = text.unflatten(2, (heads, -1)).permute(1, 2, 0, 3)  # (h, t, d / h) each
            attended = functional.scaled_dot_product_attention(q[None], k[None], v[None])[0]
            found.append(attended.permute(1, 0, 2).flatten(1))
        return torch.cat(found)

    def _inputs(self, x: torch.Tensor) -> Inputs:
        x = x[: self._seen]
        return Inputs(x.abs().amax(0).numpy(), (x.T @ x / len(x)).numpy())

    def _linear(self, x: torch.Tensor, name: str, outputs: int, inputs: int) -> torch.Tensor:
        matrix = self._tensor(f"{name}.weight", outputs, inputs)
        return functional.linear(x, matrix, self._tensor(f"{name}.bias", outputs))

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        d = self._checkpoint.width
        gain, bias = self._tensor(f"{name}.weight", d), self._tensor(f"{name}.bias", d)
        return functional.layer_norm(x, (d,), gain, bias, self._checkpoint.epsilon)

    def _tensor(self, name: str, *shape: int) -> Any:
        return torch.from_numpy(self._weights(name, *shape))
