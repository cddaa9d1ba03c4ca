"""sentence-transformers' backends: OpenVINO, its static int8, and ONNX Runtime's dynamic int8."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

FILES = {
    "openvino": "openvino/openvino_model.xml",
    "openvino-int8": "openvino-int8/openvino/openvino_model.xml",
    "onnx-int8": "onnx/model_int8.onnx",
}
CALIBRATION = "calibration.json"  # a list of texts that `benchmarks.peers` leaves in the folder


def export(name: str, model: Path, folder: Path) -> None:
    """Make one peer's file in the common folder, a sentence-transformers model with mean pooling."""
    if name == "openvino-int8":
        _quantize_openvino(folder)
        return
    limits = json.loads((model / "sentence_bert_config.json").read_text())
    transformer = Transformer(
        str(model),
        backend=name.partition("-")[0],
        model_kwargs={"export": True},
        max_seq_length=limits["max_seq_length"],
    )
    # Built by hand, because the checkpoint's own modules say CLS.
    modules = [transformer, Pooling(transformer.get_embedding_dimension(), "mean"), Normalize()]
    encoder = SentenceTransformer(modules=modules, device="cpu")
    if name == "openvino":
        encoder.save_pretrained(str(folder), create_model_card=False)
    else:
        from sentence_transformers.backend import export_dynamic_quantized_onnx_model

        export_dynamic_quantized_onnx_model(encoder, _instructions(), str(folder), file_suffix="int8")


def _quantize_openvino(folder: Path) -> None:
    """Like export_static_quantized_openvino_model, whose calibration texts are only on a hub."""
    import nncf
    from optimum.intel import OVConfig, OVQuantizationConfig, OVQuantizer

    encoder = _load("openvino", folder)
    texts = json.loads((folder / CALIBRATION).read_text(encoding="utf-8"))
    inputs = [dict(encoder.tokenizer(text, return_tensors="np")) for text in texts]
    OVQuantizer.from_pretrained(encoder[0].auto_model).quantize(
        nncf.Dataset(inputs),
        save_directory=folder / "openvino-int8",  # the library adds "openvino" to this
        ov_config=OVConfig(quantization_config=OVQuantizationConfig(num_samples=len(texts))),
    )


def _instructions() -> str:
    """The name of sentence-transformers' settings for this processor."""
    flags = Path("/proc/cpuinfo").read_text()
    if os.uname().machine == "aarch64":
        return "arm64"
    return "avx512_vnni" if "avx512_vnni" in flags else "avx512" if "avx512f" in flags else "avx2"


def _load(name: str, folder: Path) -> SentenceTransformer:
    """A model on OMP_NUM_THREADS threads."""
    threads = int(os.environ["OMP_NUM_THREADS"])
    settings: dict[str, Any] = {"file_name": FILES[name]}
    backend = name.partition("-")[0]
    if backend == "onnx":
        from onnxruntime import SessionOptions

        settings["session_options"] = SessionOptions()
        settings["session_options"].intra_op_num_threads = threads
    else:
        settings["ov_config"] = {"INFERENCE_NUM_THREADS": str(threads)}
    return SentenceTransformer(str(folder), backend=backend, device="cpu", model_kwargs=settings)


class Encoder:
    """One of sentence-transformers' backends."""

    def __init__(self, name: str, folder: Path) -> None:
        self._encoder = _load(name, folder)

    def encode(self, texts: list[str], batch: int) -> np.ndarray:
        return self._encoder.encode(texts, batch_size=batch, show_progress_bar=False)

    def tokens(self, texts: list[str]) -> int:
        return sum(map(len, self._encoder.tokenizer(texts, truncation=True)["input_ids"]))
