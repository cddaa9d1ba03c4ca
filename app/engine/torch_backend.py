"""The reference backend: the plain forward pass of transformers and torch, in float32."""

import contextlib
from typing import Any

import numpy as np
import torch
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import FloatArray, IntArray, Kind, Precision, Span
from app.engine.errors import ModelError
from app.engine.heads import pooled
from app.engine.weights import read_head


class TorchBackend:
    """A checkpoint in memory, mapped from its file and run by `forward`."""

    name = "torch"
    precision: Precision = "fp32"
    start_tokens: float | None = 15  # constant: the reference must not depend on how busy a machine is
    streams = 1  # a forward pass has all threads
    preempt = None  # a forward pass cannot pause

    def __init__(self, checkpoint: Checkpoint, threads: int) -> None:
        """Load the weights; raises ModelError with the file that is corrupt or does not fit."""
        torch.set_num_threads(threads)
        with contextlib.suppress(RuntimeError):  # it can be set only once in a process
            torch.set_num_interop_threads(1)
        self._pad_id = checkpoint.pad_id
        self._vocabulary = checkpoint.vocabulary
        self._model = _load_model(checkpoint)
        self._heads = {name: read_head(checkpoint, name) for name in checkpoint.heads}

    def forward(self, sequences: list[IntArray], wanted: list[tuple[int, Kind]]) -> list[FloatArray]:
        """Compute each wanted (index of a sequence, kind): shapes as for Kind, not normalised."""
        longest = max(map(len, sequences))
        ids = np.full((len(sequences), longest), self._pad_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        with torch.inference_mode():
            output = self._model(
                input_ids=torch.from_numpy(ids % self._vocabulary),
                token_type_ids=torch.from_numpy(ids // self._vocabulary),
                attention_mask=torch.from_numpy(mask),
            )
        hidden = output.last_hidden_state.numpy()  # (b, t, d)
        return [self._one(hidden[row, : len(sequences[row])], kind) for row, kind in wanted]

    def _one(self, hidden: FloatArray, kind: Kind) -> FloatArray:
        if kind == "mean" or kind == "cls" or isinstance(kind, Span):
            return pooled(hidden, kind)
        assert kind != "score"  # see Scoring
        matrix, bias = self._heads[kind]
        projected = hidden @ matrix.T + bias
        return projected if kind == "colbert" else projected[:, 0]


def _load_model(checkpoint: Checkpoint) -> Any:
    file = checkpoint.weights[0] if len(checkpoint.weights) == 1 else checkpoint.path
    transformers_logging.disable_progress_bar()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # what it would warn about is checked below
    try:
        model, report = AutoModel.from_pretrained(
            checkpoint.path,
            dtype=torch.float32,  # else it is the type in config.json
            add_pooling_layer=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # damaged files make torch and transformers raise a dozen kinds
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"the weights in {file} cannot be loaded, they are corrupt, cut short or do not fit "
            f"{checkpoint.path / 'config.json'}: {reason}"
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{file} lacks {len(missing)} weights, {missing[0]} among them")
    return model.eval()
