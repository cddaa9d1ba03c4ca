"""`python -m benchmarks.checkpoint`: the files, shapes and size of BGE-M3, with random weights.

The time of a forward pass does not depend on the values of the weights, so this is as fast as the real model.
With `--reranker` it makes those of bge-reranker-v2-m3, the same network with a classification head.
"""

import argparse
import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEFAULT = Path("models/bench")
RERANKER = Path("models/bench-reranker")
TOKENIZER = Path("models/multilingual-e5-small/tokenizer.json")

SHAPE = {
    "vocab_size": 250002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 8194,
}
WEIGHTS = {"bin": "pytorch_model.bin", "safetensors": "model.safetensors"}
SPECIAL = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
FILES: dict[str, Any] = {
    "tokenizer_config.json": {
        "tokenizer_class": "XLMRobertaTokenizer",
        "model_max_length": 8192,
        **SPECIAL,
    },
    "special_tokens_map.json": SPECIAL,
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ],
    "1_Pooling/config.json": {
        "word_embedding_dimension": 1024,
        "pooling_mode_cls_token": True,
        "pooling_mode_mean_tokens": False,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    },
    "sentence_bert_config.json": {"max_seq_length": 8192, "do_lower_case": False},
    "config_sentence_transformers.json": {
        "__version__": {"sentence_transformers": "2.2.2", "transformers": "4.33.0", "pytorch": "2.1.2+cu121"}
    },
}
HEADS = ("sparse_linear.pt", "colbert_linear.pt")
RERANKER_FILES = {name: FILES[name] for name in ("tokenizer_config.json", "special_tokens_map.json")}
# How the tokenizer frames a pair: <s> query </s></s> passage </s>.
PAIR = [
    {"SpecialToken": {"id": "<s>", "type_id": 0}},
    {"Sequence": {"id": "A", "type_id": 0}},
    {"SpecialToken": {"id": "</s>", "type_id": 0}},
    {"SpecialToken": {"id": "</s>", "type_id": 0}},
    {"Sequence": {"id": "B", "type_id": 0}},
    {"SpecialToken": {"id": "</s>", "type_id": 0}},
]


def is_complete(folder: Path, reranker: bool = False) -> bool:
    """Whether the folder has every file, with weights in either format."""
    names = ("config.json", "tokenizer.json", *(RERANKER_FILES if reranker else (*HEADS, *FILES)))
    return all((folder / name).is_file() for name in names) and any(
        (folder / name).is_file() for name in WEIGHTS.values()
    )


def make_checkpoint(
    folder: Path, tokenizer: Path, form: str = "bin", seed: int = 0, shape: dict[str, int] = SHAPE
) -> None:
    """Write the folder of an encoder; it gets its name once it is complete, and everybody may read it."""
    with _whole(folder) as partial:
        _write_encoder(partial, form, seed, shape)
        shutil.copyfile(tokenizer, partial / "tokenizer.json")
        _write_files(partial, FILES)


def make_reranker(
    folder: Path, tokenizer: Path, form: str = "safetensors", seed: int = 1, shape: dict[str, int] = SHAPE
) -> None:
    """Write the folder of a cross-encoder with one label, like make_checkpoint."""
    with _whole(folder) as partial:
        _write_reranker(partial, form, seed, shape)
        content = json.loads(tokenizer.read_text(encoding="utf-8"))
        content["post_processor"]["pair"] = PAIR
        (partial / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        _write_files(partial, RERANKER_FILES)


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder to write into; it gets its name once everything is written."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        for path in (partial, *partial.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_files(folder: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def _write_encoder(folder: Path, form: str, seed: int, shape: dict[str, int]) -> None:
    import torch
    from transformers import XLMRobertaModel

    torch.manual_seed(seed)
    config = _config(shape)
    _save(XLMRobertaModel(config), folder, form)
    for name, rows in zip(HEADS, (1, config.hidden_size), strict=True):
        matrix = torch.randn(rows, config.hidden_size) * config.hidden_size**-0.5
        torch.save({"weight": matrix.half(), "bias": torch.zeros(rows).half()}, folder / name)


def _write_reranker(folder: Path, form: str, seed: int, shape: dict[str, int]) -> None:
    import torch
    from transformers import XLMRobertaForSequenceClassification

    torch.manual_seed(seed)
    _save(XLMRobertaForSequenceClassification(_config(shape, num_labels=1)), folder, form)


def _config(shape: dict[str, int], **also: Any) -> Any:
    from transformers import XLMRobertaConfig

    return XLMRobertaConfig(
        **shape,
        type_vocab_size=1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        layer_norm_eps=1e-5,
        **also,
    )


def _save(model: Any, folder: Path, form: str) -> None:
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    model.config.architectures = [type(model).__name__]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            _spread(name, weight)
    if form == "safetensors":
        model.save_pretrained(folder)
    else:
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / WEIGHTS["bin"])


def _spread(name: str, weight: Any) -> None:
    """Make the numbers larger: an untrained model's vectors are nearly the same for every text."""
    if name.endswith("LayerNorm.weight"):
        weight.normal_(1.0, 0.1)
    elif name.endswith("bias"):
        weight.normal_(0.0, 0.02)
    elif "query" in name or "key" in name:
        weight.normal_(0.0, 0.06)
    elif "word_embeddings" in name:
        weight.normal_(0.0, 0.05)
    elif name.endswith("out_proj.weight"):
        weight.normal_(0.0, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0].partition(": ")[2])
    parser.add_argument("folder", type=Path, nargs="?", help=f"{DEFAULT}, or {RERANKER} for a reranker")
    parser.add_argument("--reranker", action="store_true", help="a cross-encoder's, with one label")
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER, help="the tokenizer.json to copy")
    parser.add_argument("--format", choices=WEIGHTS, help="bin, or safetensors for a reranker, as published")
    options = parser.parse_args()
    options.folder = options.folder or (RERANKER if options.reranker else DEFAULT)
    if is_complete(options.folder, options.reranker):
        print(f"{options.folder} is there")
        return
    if options.folder.exists():
        parser.error(f"{options.folder} is there but not whole: remove it first")
    if not options.tokenizer.is_file():
        parser.error(f"{options.tokenizer} is not there: `make models/multilingual-e5-small` makes it")
    if options.reranker:
        make_reranker(options.folder, options.tokenizer, options.format or "safetensors")
    else:
        make_checkpoint(options.folder, options.tokenizer, options.format or "bin")
    print(f"{options.folder} is made")


if __name__ == "__main__":
    main()
