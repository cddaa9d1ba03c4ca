"""A model folder: which files it has, its width and limits, which heads came with it."""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from app.engine.embeddings import Head, IntArray, ModelInfo, Pooling
from app.engine.errors import ModelError

# Positions of these families start after the padding id, so that many are lost to the text.
OFFSET_POSITIONS = ("xlm-roberta", "roberta", "camembert")
MODEL_TYPES = ("bert", *OFFSET_POSITIONS)

# In order of preference; an index file lists the shards of a split checkpoint.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
HEADS: dict[Head, str] = {"sparse": "sparse_linear.pt", "colbert": "colbert_linear.pt"}


@dataclass(frozen=True)
class Checkpoint:
    """What the files of a model folder say, without reading any weights."""

    path: Path
    model_type: str
    width: int  # of a token's state and so of a dense vector
    inner: int  # width of the feed-forward layers
    layers: int
    attention_heads: int
    vocabulary: int
    positions: int  # rows of the position table
    token_types: int
    epsilon: float  # of the layer norms
    pad_id: int
    max_tokens: int  # of one text, special tokens included
    weights: tuple[Path, ...]
    trained_pooling: Pooling | None  # what the folder's 1_Pooling says, if anything
    heads: tuple[Head, ...]

    @property
    def offset_positions(self) -> bool:
        """Whether positions are counted after the padding id, and padding ids in a text not at all."""
        return self.model_type in OFFSET_POSITIONS

    def positions_of(self, ids: IntArray) -> IntArray:
        """Where each token of a text stands in the position table. (t,) -> (t,)

        XLM-RoBERTa gives a padding id in a text no place of its own.
        """
        if not self.offset_positions:
            return np.arange(len(ids))
        counted = ids != self.pad_id
        return np.asarray(np.cumsum(counted) * counted + self.pad_id)

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer.json"

    @property
    def missing_head(self) -> str | None:
        """The head file that is absent although its sibling is there: a folder copied in part."""
        absent = [file for head, file in HEADS.items() if head not in self.heads]
        return absent[0] if len(absent) == 1 else None

    @property
    def size(self) -> int:
        """Bytes of the weight files on disk."""
        return sum(file.stat().st_size for file in self.weights)

    @property
    def parameters(self) -> int:
        """Weights of the backbone."""
        d = self.width
        embeddings = (self.vocabulary + self.positions + self.token_types + 2) * d
        return embeddings + self.layers * (4 * d * (d + 1) + 2 * d * self.inner + self.inner + 5 * d)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the files a graph is made of: names, sizes, first and last megabyte of each."""
        digest = hashlib.sha256()
        heads = [self.path / HEADS[head] for head in self.heads]
        for file in (self.path / "config.json", *self.weights, *heads):
            with file.open("rb") as content:
                size = file.stat().st_size
                digest.update(f"{file.name} {size} ".encode())
                digest.update(content.read(1 << 20))
                content.seek(max(0, size - (1 << 20)))
                digest.update(content.read())
        return digest.hexdigest()

    def info(self, max_tokens: int, pooling: Pooling, engine: str, precision: str) -> ModelInfo:
        """What is served of it, with what the encoder adds."""
        return ModelInfo(
            family=self.model_type,
            parameters=self.parameters,
            size=self.size,
            digest=self.fingerprint,
            modified=max(file.stat().st_mtime for file in self.weights),
            layers=self.layers,
            width=self.width,
            vocabulary=self.vocabulary,
            heads=self.heads,
            max_tokens=max_tokens,
            pooling=pooling,
            engine=engine,
            precision=precision,
        )


def read_checkpoint(path: Path) -> Checkpoint:
    """Describe the model folder at `path`; ModelError names the file that is absent or unusable."""
    if not path.is_dir():
        raise ModelError(f"there is no model folder {path} (and so no {path / 'config.json'})")
    config = _read_json(path, "config.json")
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise ModelError(
            f"{path / 'config.json'} says model_type {model_type!r}, "
            f"this server runs encoders of type {', '.join(MODEL_TYPES)}"
        )
    if not (path / "tokenizer.json").is_file():
        raise ModelError(f"the model folder {path} has no tokenizer.json")

    def number(key: str, default: int | None = None) -> int:
        value = config.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ModelError(f"{path / 'config.json'} has no whole number under {key!r}")
        return value

    pad_id = number("pad_token_id", 0)
    if (activation := config.get("hidden_act", "gelu")) != "gelu":
        raise ModelError(f"{path / 'config.json'} says hidden_act {activation!r}, this server knows gelu")
    max_tokens = number("max_position_embeddings")
    if model_type in OFFSET_POSITIONS:
        max_tokens -= pad_id + 1
    sentence_limit = _read_json(path, "sentence_bert_config.json", required=False).get("max_seq_length")
    if isinstance(sentence_limit, int) and sentence_limit > 0:
        max_tokens = min(max_tokens, sentence_limit)

    return Checkpoint(
        path=path,
        model_type=model_type,
        width=number("hidden_size"),
        inner=number("intermediate_size"),
        layers=number("num_hidden_layers"),
        attention_heads=number("num_attention_heads"),
        vocabulary=number("vocab_size"),
        positions=number("max_position_embeddings"),
        token_types=number("type_vocab_size", 1),
        epsilon=float(config.get("layer_norm_eps", 1e-12)),
        pad_id=pad_id,
        max_tokens=max_tokens,
        weights=_weight_files(path),
        trained_pooling=_trained_pooling(path),
        heads=tuple(head for head, file in HEADS.items() if (path / file).is_file()),
    )


def _weight_files(path: Path) -> tuple[Path, ...]:
    files = _find_weights(path)
    for file in files:
        if not os.access(file, os.R_OK):
            raise ModelError(f"{file} may not be read by the user this runs as")
    return files


def _find_weights(path: Path) -> tuple[Path, ...]:
    for name in WEIGHTS:
        if not (path / name).is_file():
            continue
        if not name.endswith(".index.json"):
            return (path / name,)
        shards = sorted(set(_read_json(path, name).get("weight_map", {}).values()))
        for shard in shards:
            if not (path / shard).is_file():
                raise ModelError(f"the model folder {path} has no {shard}, which {name} lists")
        return tuple(path / shard for shard in shards)
    raise ModelError(f"the model folder {path} has neither model.safetensors nor pytorch_model.bin")


def _trained_pooling(path: Path) -> Pooling | None:
    pooling = _read_json(path / "1_Pooling", "config.json", required=False)
    if pooling.get("pooling_mode_cls_token"):
        return "cls"
    return "mean" if pooling.get("pooling_mode_mean_tokens") else None


def _read_json(folder: Path, name: str, required: bool = True) -> dict[str, Any]:
    file = folder / name
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise ModelError(f"the model folder {folder} has no {name}") from None
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} does not hold a JSON object")
    return content
