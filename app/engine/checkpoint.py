"""A model folder: its files, its width and limits, and its heads."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from app.engine.embeddings import Head, IntArray, ModelInfo, Pooling, Precision
from app.engine.errors import ModelError

# These families number positions from the padding id + 1, so a text cannot use the positions before.
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
# Names of transformers' classes with a classification head end with this, a cross-encoder's too.
CLASSIFIER = "ForSequenceClassification"

LEAST_TOKENS = 3  # a text's first and last special token, and one between them
INT32 = (1 << 31) - 1  # the engines count in 32 bits
UNLIMITED = int(1e30)  # Hugging Face tokenizers' value for a length that is not set
# Files up to WHOLE bytes count with all their bytes in a fingerprint, larger ones with PIECE bytes at each of
# PIECES places. That is often enough for each matrix of a layer: merging a LoRA adapter changes only some.
WHOLE, PIECE, PIECES = 32 << 20, 1 << 12, 2048


@dataclass(frozen=True)
class Checkpoint:
    """A model as the files of its folder describe it, without reading any weights."""

    path: Path
    model_type: str
    width: int  # of a token's state, and so of a dense vector
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
    trained_pooling: Pooling | None  # from the folder's 1_Pooling, if it says
    heads: tuple[Head, ...]
    # Names of a cross-encoder's scores, one label for each; () for an encoder.
    labels: tuple[str, ...] = ()

    @property
    def segments(self) -> int:
        """How many token types are used: a cross-encoder may tell the texts of a pair apart by them."""
        return self.token_types if self.labels else 1

    @property
    def offset_positions(self) -> bool:
        """Whether positions are numbered from the padding id + 1 and skip padding ids within a text."""
        return self.model_type in OFFSET_POSITIONS

    def positions_of(self, ids: IntArray) -> IntArray:
        """The row of the position table for each token of a text. (t,) -> (t,)

        XLM-RoBERTa does not number a padding id within a text. For a token of the second text of a pair (see
        `second`), the row is in the second part of the table.
        """
        if not self.offset_positions:
            return np.arange(len(ids)) + self.positions * (ids // self.vocabulary)
        counted = ids != self.pad_id
        return np.asarray(np.cumsum(counted) * counted + self.pad_id)

    def second(self, ids: IntArray) -> IntArray:
        """Mark ids as tokens of the second text of a pair: backends take them shifted past the vocabulary.

        Without token types the ids stay as they are."""
        return ids + self.vocabulary if self.segments > 1 else ids

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer.json"

    @property
    def missing_head(self) -> str | None:
        """The head file that is missing while the other one is there: the folder was copied in part."""
        absent = [file for head, file in HEADS.items() if head not in self.heads]
        return absent[0] if len(absent) == 1 else None

    @property
    def weights_place(self) -> Path:
        """The weight file, or the folder if there are several."""
        return self.weights[0] if len(self.weights) == 1 else self.path

    @property
    def size(self) -> int:
        """Bytes of the weight files on disk."""
        return sum(file.stat().st_size for file in self.weights)

    @property
    def parameters(self) -> int:
        """Number of weights in the backbone."""
        d = self.width
        embeddings = (self.vocabulary + self.positions + self.token_types + 2) * d
        return embeddings + self.layers * (4 * d * (d + 1) + 2 * d * self.inner + self.inner + 5 * d)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over what decides the vectors: the configuration, the tokenizer, weights and heads."""
        heads = [self.path / HEADS[head] for head in self.heads]
        return fingerprint((self.path / "config.json", self.tokenizer, *self.weights, *heads))

    def info(self, max_tokens: int, pooling: Pooling, engine: str, precision: Precision) -> ModelInfo:
        """The description of the served model, with what the encoder adds."""
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
            labels=self.labels,
        )


def fingerprint(files: Iterable[Path]) -> str:
    """sha256 over the name, the size and the content of each file, of large ones evenly spread pieces."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb", buffering=0) as content:
            size = os.fstat(content.fileno()).st_size
            digest.update(f"{file.name} {size} ".encode())
            if size <= WHOLE:
                digest.update(content.readall())
                continue
            for number in range(PIECES):
                place = (size - PIECE) * number // (PIECES - 1)
                digest.update(os.pread(content.fileno(), PIECE, place))
    return digest.hexdigest()


def read_checkpoint(path: Path) -> Checkpoint:
    """Describe the model folder at `path`; raises ModelError with the file that is missing or unusable."""
    try:
        found = _describe(path)
        too_small = found.size < found.parameters  # even at one byte each
    except OSError as error:  # such as a parent folder that this user may not enter
        raise ModelError(f"the model folder {path} cannot be read: {error.strerror or error}") from error
    if too_small:
        raise ModelError(
            f"the weights in {found.weights_place} are fewer than {path / 'config.json'} requires: "
            "they are corrupt, cut short or do not fit it"
        )
    return found


def _describe(path: Path) -> Checkpoint:
    if not path.is_dir():
        raise ModelError(f"there is no model folder {path} (and so no {path / 'config.json'})")
    config = _Config(path, "config.json")
    model_type = config.word("model_type", *MODEL_TYPES)
    if not (path / "tokenizer.json").is_file():
        raise ModelError(f"the model folder {path} has no tokenizer.json")
    config.word("hidden_act", "gelu", default="gelu")
    vocabulary = config.number("vocab_size", 1)
    pad_id = config.number("pad_token_id", 0, vocabulary - 1, default=0)
    width = config.number("hidden_size", 1)
    heads = config.number("num_attention_heads", 1)
    if width % heads:
        raise ModelError(
            f"{config.file} says hidden_size {width}, which num_attention_heads {heads} does not divide"
        )
    taken = pad_id + 1 if model_type in OFFSET_POSITIONS else 0  # positions up to the padding id
    positions = config.number("max_position_embeddings", LEAST_TOKENS + taken)
    max_tokens = positions - taken
    sentences = _Config(path, "sentence_bert_config.json", required=False)
    if sentences.content.get("max_seq_length") is not None:
        max_tokens = min(max_tokens, sentences.number("max_seq_length", LEAST_TOKENS, UNLIMITED))

    return Checkpoint(
        path=path,
        model_type=model_type,
        width=width,
        inner=config.number("intermediate_size", 1),
        layers=config.number("num_hidden_layers", 1),
        attention_heads=heads,
        vocabulary=vocabulary,
        positions=positions,
        token_types=config.number("type_vocab_size", 1, default=1),
        epsilon=config.epsilon("layer_norm_eps", default=1e-12),
        pad_id=pad_id,
        max_tokens=max_tokens,
        weights=_weight_files(path),
        trained_pooling=_trained_pooling(path),
        heads=tuple(head for head, file in HEADS.items() if (path / file).is_file()),
        labels=config.labels(),
    )


def _weight_files(path: Path) -> tuple[Path, ...]:
    files = _find_weights(path)
    for file in files:
        if not os.access(file, os.R_OK):
            raise ModelError(f"the user that runs this server may not read {file}")
    return files


def _find_weights(path: Path) -> tuple[Path, ...]:
    for name in WEIGHTS:
        if not (path / name).is_file():
            continue
        if not name.endswith(".index.json"):
            return (path / name,)
        return _shards(path, name)
    raise ModelError(f"the model folder {path} has neither model.safetensors nor pytorch_model.bin")


def _shards(path: Path, index: str) -> tuple[Path, ...]:
    """The files that an index lists; they must be in the folder itself, but may be links."""
    named = _Config(path, index).content.get("weight_map")
    if (
        not isinstance(named, dict)
        or not all(isinstance(shard, str) for shard in named.values())
        or not named
    ):
        raise ModelError(f"{path / index} must name the file of each tensor under 'weight_map'")
    shards = sorted(set(named.values()))
    for shard in shards:
        if Path(shard).name != shard or not os.path.isfile(path / shard):  # never raises, whatever the name
            raise ModelError(f"the model folder {path} has no file {shard!r:.80}, which {index} lists")
    return tuple(path / shard for shard in shards)


def _trained_pooling(path: Path) -> Pooling | None:
    pooling = _Config(path / "1_Pooling", "config.json", required=False).content
    if pooling.get("pooling_mode_cls_token"):
        return "cls"
    return "mean" if pooling.get("pooling_mode_mean_tokens") else None


class _Config:
    """The JSON object in a file, and its checked values; ModelError names the file and the key.

    A missing file that is not `required` counts as an empty object.
    """

    def __init__(self, folder: Path, name: str, required: bool = True) -> None:
        self.file = folder / name
        self.content: dict[str, Any] = {}
        try:
            content = json.loads(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if required:
                raise ModelError(f"the model folder {folder} has no {name}") from None
            return
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"{self.file} cannot be read as JSON: {error}") from error
        if not isinstance(content, dict):
            raise ModelError(f"{self.file} does not hold a JSON object")
        self.content = content

    def number(self, key: str, least: int, most: int = INT32, default: int | None = None) -> int:
        value = self.content.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ModelError(f"{self.file} has no whole number from {least} to {most} under {key!r}")
        return value

    def epsilon(self, key: str, default: float) -> float:
        value = self.content.get(key, default)
        if not isinstance(value, float) or not 0 < value < 1:
            raise ModelError(f"{self.file} has no number between 0 and 1 under {key!r}")
        return value

    def word(self, key: str, *known: str, default: str | None = None) -> str:
        value = self.content.get(key, default)
        if value not in known:
            found = f"says {key} {value!r:.40}" if isinstance(value, str) else f"has no string under {key!r}"
            raise ModelError(f"{self.file} {found}, this server supports {', '.join(known)}")
        return str(value)

    def labels(self) -> tuple[str, ...]:
        """The names of a classifier's outputs; () for other models."""
        classes = self.content.get("architectures")
        if not isinstance(classes, list) or not any(str(name).endswith(CLASSIFIER) for name in classes):
            return ()
        named = self.content.get("id2label")
        if isinstance(named, dict) and named:
            return tuple(str(label) for label in named.values())
        # If the file does not say, transformers assumes two labels.
        return tuple(f"LABEL_{label}" for label in range(self.number("num_labels", 1, default=2)))
