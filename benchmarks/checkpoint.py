"""`python -m benchmarks.checkpoint`: the files, shapes and size of BGE-M3, with random weights.

How long a forward takes does not depend on what the weights are, so this times as the real model does.
"""

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

DEFAULT = Path("models/bench")
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


def is_complete(folder: Path) -> bool:
    """Whether the folder has every file, its weights in either format."""
    names = ("config.json", "tokenizer.json", *HEADS, *FILES)
    return all((folder / name).is_file() for name in names) and any(
        (folder / name).is_file() for name in WEIGHTS.values()
    )


def make_checkpoint(
    folder: Path, tokenizer: Path, form: str = "bin", seed: int = 0, shape: dict[str, int] = SHAPE
) -> None:
    """Write the folder; it appears under its name only when whole, and anybody may read it."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        (partial / "1_Pooling").mkdir(parents=True)
        _write_weights(partial, form, seed, shape)
        shutil.copyfile(tokenizer, partial / "tokenizer.json")
        for name, content in FILES.items():
            (partial / name).write_text(json.dumps(content, indent=2) + "\n")
        for path in (partial, *partial.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_weights(folder: Path, form: str, seed: int, shape: dict[str, int]) -> None:
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(seed)
    config = XLMRobertaConfig(
        **shape,
        type_vocab_size=1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        layer_norm_eps=1e-5,
        architectures=["XLMRobertaModel"],
    )
    model = XLMRobertaModel(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            _spread(name, weight)
    if form == "safetensors":
        model.save_pretrained(folder)
    else:
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / WEIGHTS["bin"])
    for name, rows in zip(HEADS, (1, config.hidden_size), strict=True):
        matrix = torch.randn(rows, config.hidden_size) * config.hidden_size**-0.5
        torch.save({"weight": matrix.half(), "bias": torch.zeros(rows).half()}, folder / name)


def _spread(name: str, weight: Any) -> None:
    """Larger numbers than an untrained model's, whose vectors are nearly the same for every text."""
    if name.endswith("LayerNorm.weight"):
        weight.normal_(1.0, 0.1)
    elif name.endswith("bias"):
        weight.normal_(0.0, 0.02)
    elif "query" in name or "key" in name:
        weight.normal_(0.0, 0.06)
    elif "word_embeddings" in name:
        weight.normal_(0.0, 0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0].partition(": ")[2])
    parser.add_argument("folder", type=Path, nargs="?", default=DEFAULT)
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER, help="the tokenizer.json to copy")
    parser.add_argument("--format", choices=WEIGHTS, default="bin")
    options = parser.parse_args()
    if is_complete(options.folder):
        print(f"{options.folder} is there")
        return
    if options.folder.exists():
        parser.error(f"{options.folder} is there but not whole: remove it first")
    if not options.tokenizer.is_file():
        parser.error(f"{options.tokenizer} is not there: `make models/multilingual-e5-small` makes it")
    make_checkpoint(options.folder, options.tokenizer, options.format)
    print(f"{options.folder} is made")


if __name__ == "__main__":
    main()
