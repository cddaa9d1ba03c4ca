"""CTranslate2 at its fastest: small batches of texts of similar length, mean pooling, L2."""

import json
import os
import shutil
from pathlib import Path

import ctranslate2
import numpy as np
from tokenizers import Tokenizer

# Tokens per batch, padding included: larger batches do not fit into the caches and are slower.
BATCH_TOKENS = 512
COMPUTE = {"ctranslate2": "float32", "ctranslate2-int8": "int8"}


def export(name: str, model: Path, folder: Path) -> None:
    """Convert the checkpoint, and set its tokenizer to truncate at the model's limit."""
    folder /= name
    shutil.rmtree(folder, ignore_errors=True)  # left by an attempt that ended early
    ctranslate2.converters.TransformersConverter(str(model)).convert(
        str(folder), quantization=COMPUTE[name], force=True
    )
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    limits = json.loads((model / "sentence_bert_config.json").read_text())
    tokenizer.enable_truncation(limits["max_seq_length"])
    tokenizer.no_padding()
    tokenizer.save(str(folder / "tokenizer.json"))


class Encoder:
    """A converted encoder on OMP_NUM_THREADS threads."""

    def __init__(self, name: str, folder: Path) -> None:
        folder /= name
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._encoder = ctranslate2.Encoder(
            str(folder),
            compute_type=COMPUTE[name],
            inter_threads=1,
            intra_threads=int(os.environ["OMP_NUM_THREADS"]),
        )

    def encode(self, texts: list[str], batch: int) -> np.ndarray:
        """Vectors in the order of the texts; this makes its own batches and ignores `batch`."""
        ids = self._ids(texts)
        vectors: list[np.ndarray] = [np.empty(0)] * len(ids)
        for numbers in _batches([len(each) for each in ids]):
            found = self._encoder.forward_batch([ids[number] for number in numbers])
            hidden = np.asarray(found.last_hidden_state)
            for number, rows in zip(numbers, hidden, strict=True):
                mean = rows[: len(ids[number])].mean(axis=0)
                vectors[number] = mean / np.linalg.norm(mean)
        return np.stack(vectors)

    def tokens(self, texts: list[str]) -> int:
        return sum(map(len, self._ids(texts)))

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]


def _batches(lengths: list[int]) -> list[list[int]]:
    """Batches of the texts' indices, the longest texts first, of up to BATCH_TOKENS or a single text."""
    batches: list[list[int]] = []
    room = 0
    for number in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if room == 0:
            batches.append([])
            room = max(1, BATCH_TOKENS // max(1, lengths[number]))
        batches[-1].append(number)
        room -= 1
    return batches
