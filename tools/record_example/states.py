"""The demo model's states of every token, which stay as they are while the heads learn."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel

from app.engine.embeddings import FloatArray, IntArray
from app.engine.heads import mean_pooling, normalize
from app.engine.tokenizer import Tokenizer

TOKENS = 128  # of a text, at most
BATCH = 32


@dataclass(frozen=True)
class Text:
    """A text's t tokens, special ones left out."""

    ids: IntArray  # (t,)
    starts: IntArray  # (t,), in characters
    ends: IntArray  # (t,)
    states: torch.Tensor  # (t, d), half precision
    dense: FloatArray  # (d,), of length 1


def read(folder: Path, texts: Iterable[str]) -> dict[str, Text]:
    """Of each different text."""
    tokenizer = Tokenizer(folder / "tokenizer.json", 512)
    model = AutoModel.from_pretrained(folder).eval()
    located = {text: tuple(part[:TOKENS] for part in tokenizer.located(text)) for text in set(texts)}
    order = sorted(located, key=lambda text: (len(located[text][0]), text))
    found = {}
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        sequences = [torch.from_numpy(tokenizer.framed(located[text][0])) for text in batch]
        ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=1)
        with torch.inference_mode():
            hidden = model(input_ids=ids, attention_mask=(ids != 1).long()).last_hidden_state
        for text, sequence, rows in zip(batch, sequences, hidden, strict=True):
            own = rows[: len(sequence)]
            dense = normalize(mean_pooling(own.numpy()))
            found[text] = Text(*located[text], own[1:-1].half().clone(), np.asarray(dense))
    return found
