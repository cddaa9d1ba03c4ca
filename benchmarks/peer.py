"""sentence-transformers on a backend of its own, in the peers' environment: `benchmarks.peers` starts it.

    python -m benchmarks.peer export openvino models/bench models/bench-peers
    python -m benchmarks.peer run openvino models/bench-peers

Either says on a line of standard output when it is done or ready. While it runs, a line in has calls, each a
list of texts, and the batch size; a line out their tokens and seconds, one by one, and vectors if asked for.
"""

import contextlib
import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

FILES = {
    "openvino": "openvino/openvino_model.xml",
    "openvino-int8": "openvino-int8/openvino/openvino_model.xml",
    "onnx-int8": "onnx/model_int8.onnx",
}
CALIBRATION = "calibration.json"  # a list of texts that `benchmarks.peers` leaves in the folder
PACKAGES = (
    *("sentence-transformers", "transformers", "torch", "openvino", "nncf", "onnxruntime"),
    *("optimum", "optimum-intel", "optimum-onnx"),
)


def export(name: str, model: Path, folder: Path) -> None:
    """Make one peer's file in the folder of all, a sentence-transformers model with mean pooling."""
    if name == "openvino-int8":
        _quantize_openvino(folder)
        return
    transformer = Transformer(
        str(model), backend=name.partition("-")[0], model_kwargs={"export": True}, max_seq_length=8192
    )
    # By hand, because the checkpoint's own modules say CLS.
    modules = [transformer, Pooling(transformer.get_embedding_dimension(), "mean"), Normalize()]
    encoder = SentenceTransformer(modules=modules, device="cpu")
    if name == "openvino":
        encoder.save_pretrained(str(folder), create_model_card=False)
    else:
        from sentence_transformers.backend import export_dynamic_quantized_onnx_model

        export_dynamic_quantized_onnx_model(encoder, _instructions(), str(folder), file_suffix="int8")


def _quantize_openvino(folder: Path) -> None:
    """What export_static_quantized_openvino_model does, whose calibration texts are only on a hub."""
    import nncf
    from optimum.intel import OVConfig, OVQuantizationConfig, OVQuantizer

    encoder = load("openvino", folder)
    texts = json.loads((folder / CALIBRATION).read_text(encoding="utf-8"))
    inputs = [dict(encoder.tokenizer(text, return_tensors="np")) for text in texts]
    OVQuantizer.from_pretrained(encoder[0].auto_model).quantize(
        nncf.Dataset(inputs),
        save_directory=folder / "openvino-int8",  # it adds "openvino" to that
        ov_config=OVConfig(quantization_config=OVQuantizationConfig(num_samples=len(texts))),
    )


def _instructions() -> str:
    """The name of sentence-transformers' settings for this processor."""
    flags = Path("/proc/cpuinfo").read_text()
    if os.uname().machine == "aarch64":
        return "arm64"
    return "avx512_vnni" if "avx512_vnni" in flags else "avx512" if "avx512f" in flags else "avx2"


def load(name: str, folder: Path) -> SentenceTransformer:
    """A peer on as many threads as OMP_NUM_THREADS says."""
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


def serve(encoder: SentenceTransformer) -> None:
    """Answer every line until there are no more."""
    for line in sys.stdin:
        asked = json.loads(line)
        tokens, seconds, vectors = 0, [], []
        for texts in asked["calls"]:
            start = time.perf_counter()
            found = encoder.encode(texts, batch_size=asked["batch"], show_progress_bar=False)
            seconds.append(time.perf_counter() - start)
            tokens += sum(map(len, encoder.tokenizer(texts, truncation=True)["input_ids"]))
            vectors += found.tolist() if asked.get("vectors") else []
        print(json.dumps({"tokens": tokens, "seconds": seconds, "vectors": vectors}), flush=True)


def main() -> None:
    verb, name, *folders = sys.argv[1:]
    encoder = None
    with contextlib.redirect_stdout(sys.stderr):  # for progress bars
        if verb == "export":
            export(name, *map(Path, folders))
        else:
            encoder = load(name, Path(folders[0]))
    print(json.dumps({"versions": {name: importlib.metadata.version(name) for name in PACKAGES}}), flush=True)
    if encoder:
        serve(encoder)


if __name__ == "__main__":
    main()
