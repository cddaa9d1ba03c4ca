"""The tensors of a checkpoint, mapped from its files. This needs torch, so serving does not use it."""

from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from app.engine.checkpoint import HEADS, Checkpoint
from app.engine.embeddings import FloatArray, Head
from app.engine.errors import ModelError
from app.engine.heads import ScoringHead

# Prefixes of the backbone's names in checkpoints that were saved from a larger model.
PREFIXES = ("", "roberta.", "bert.", "model.")
# The layers of a cross-encoder's head: one reads the first token's state, the other gives the score. They are
# beside the backbone, except for BERT's first one, which is in it.
CLASSIFIERS = (
    ("classifier.dense", "classifier.out_proj"),
    ("bert.pooler.dense", "classifier"),
)
# Other types come from quantised checkpoints, and mean nothing without their scales.
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class Weights:
    """Tensors by their name in the backbone, as float32; ModelError names the file at fault."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._tensors: dict[str, tuple[Path, torch.Tensor]] = {}
        for file in checkpoint.weights:
            self._tensors |= {name: (file, tensor) for name, tensor in _read(file).items()}
        probe = "embeddings.word_embeddings.weight"
        found = [prefix for prefix in PREFIXES if prefix + probe in self._tensors]
        if not found:
            raise ModelError(f"{checkpoint.weights_place} has no {probe}")
        self._prefix = found[0]

    def __call__(self, name: str, *shape: int) -> FloatArray:
        """The tensor `name` of the backbone, which must have this shape."""
        return self._tensor(self._prefix + name, *shape)

    def _tensor(self, name: str, *shape: int) -> FloatArray:
        if name not in self._tensors:
            raise ModelError(f"{self._checkpoint.weights_place} lacks {name.removeprefix(self._prefix)}")
        file, tensor = self._tensors[name]
        if tuple(tensor.shape) != shape:
            raise ModelError(
                f"{file} does not fit {self._checkpoint.path / 'config.json'}: "
                f"{name} is {tuple(tensor.shape)} instead of {shape}"
            )
        return _numbers(file, name, tensor)

    def position_table(self) -> FloatArray:
        """Position embeddings, each with the embedding of its token's type added. (segments * positions, d)

        All tokens of an encoder's texts have type 0. Tokens of a cross-encoder's second text have type 1, and
        their positions come after those of type 0.
        """
        found = self._checkpoint
        table = self("embeddings.position_embeddings.weight", found.positions, found.width)
        types = self("embeddings.token_type_embeddings.weight", found.token_types, found.width)
        return np.concatenate([table + types[number] for number in range(found.segments)])

    def scoring_head(self) -> ScoringHead:
        """A cross-encoder's classification head; raises ModelError with the file at fault."""
        d = self._checkpoint.width
        for dense, out in CLASSIFIERS:
            if f"{dense}.weight" in self._tensors and f"{out}.weight" in self._tensors:
                return ScoringHead(
                    self._tensor(f"{dense}.weight", d, d),
                    self._tensor(f"{dense}.bias", d),
                    self._tensor(f"{out}.weight", 1, d),
                    self._tensor(f"{out}.bias", 1),
                )
        raise ModelError(
            f"{self._checkpoint.weights_place} has no classification head: it lacks "
            f"{CLASSIFIERS[0][0]}.weight or a tensor that goes with it"
        )

    def head(self, name: Head) -> tuple[FloatArray, FloatArray]:
        """See read_head."""
        return read_head(self._checkpoint, name)


def read_head(checkpoint: Checkpoint, name: Head) -> tuple[FloatArray, FloatArray]:
    """Matrix (rows, width) and bias (rows,) of one of the checkpoint's linear heads.

    `sparse` has one row, `colbert` has `width` rows. Raises ModelError with the file at fault.
    """
    shape = (1 if name == "sparse" else checkpoint.width, checkpoint.width)
    file = checkpoint.path / HEADS[name]
    tensors = _read(file)
    if not {"weight", "bias"} <= set(tensors):
        raise ModelError(f"{file} cannot be read as the weights of a linear layer")
    matrix, bias = tensors["weight"], tensors["bias"]
    if tuple(matrix.shape) != shape or tuple(bias.shape) != shape[:1]:
        raise ModelError(
            f"{file} holds a matrix of {tuple(matrix.shape)} and a bias of {tuple(bias.shape)}, "
            f"the states of {checkpoint.path} need {shape} and {shape[:1]}"
        )
    return _numbers(file, "weight", matrix), _numbers(file, "bias", bias)


def _numbers(file: Path, name: str, tensor: torch.Tensor) -> FloatArray:
    """A tensor as float32; one that already is float32 stays mapped."""
    if tensor.dtype not in FLOATS or tensor.layout != torch.strided or tensor.is_meta:
        raise ModelError(
            f"{file} holds {name} as {tensor.dtype}, {tensor.layout}: "
            "this server reads dense tensors of floats with 16 bits or more"
        )
    return np.asarray(tensor.detach().float().numpy())


def _read(file: Path) -> dict[str, torch.Tensor]:
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        # weights_only: a pickle may not run code. Old files are not zip archives and cannot be mapped.
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=_is_zip(file))
    except Exception as error:  # a damaged pickle can make the unpickler raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ModelError(f"{file} cannot be read, it is corrupt or cut short: {reason}") from error
    if not isinstance(tensors, dict) or not all(
        isinstance(value, torch.Tensor) for value in tensors.values()
    ):
        raise ModelError(f"{file} does not hold tensors by name")
    return tensors


def _is_zip(file: Path) -> bool:
    with file.open("rb") as content:
        return content.read(2) == b"PK"
