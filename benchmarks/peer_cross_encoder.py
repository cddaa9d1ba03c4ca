"""sentence-transformers' CrossEncoder by itself, in the peers' environment: `benchmarks.rerank` starts it.

    python -m benchmarks.peer_cross_encoder export openvino models/bench-reranker models/bench-reranker-peers
    python -m benchmarks.peer_cross_encoder run openvino models/bench-reranker models/bench-reranker-peers

Both write a line to standard output when they are done or ready. While it runs, an input line has pairs and
the batch size; an output line has their scores, before any sigmoid, and the seconds that they took.
"""

import contextlib
import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder

PACKAGES = ("sentence-transformers", "transformers", "torch", "openvino", "nncf", "optimum", "optimum-intel")
FILES = {
    "openvino": "openvino/openvino_model.xml",
    "openvino-int8": "openvino-int8/openvino/openvino_model.xml",
}
CALIBRATION = "calibration.json"  # a list of pairs that `benchmarks.rerank` leaves in the folder


def export(name: str, model: Path, folder: Path) -> None:
    """Make one peer's file in the peers' common folder."""
    if name == "openvino":
        load(model, {"export": True}).save_pretrained(str(folder))
    else:
        _quantize(folder)


def _quantize(folder: Path) -> None:
    """Like export_static_quantized_openvino_model, whose calibration texts are only on a hub."""
    import nncf
    from optimum.intel import OVConfig, OVQuantizationConfig, OVQuantizer

    encoder = load(folder, {"file_name": FILES["openvino"]})
    pairs = json.loads((folder / CALIBRATION).read_text(encoding="utf-8"))
    inputs = [dict(encoder.tokenizer([pair], return_tensors="np")) for pair in pairs]
    OVQuantizer.from_pretrained(encoder[0].auto_model).quantize(
        nncf.Dataset(inputs),
        save_directory=folder / "openvino-int8",  # the library adds "openvino" to this
        ov_config=OVConfig(quantization_config=OVQuantizationConfig(num_samples=len(pairs))),
    )


def load(model: Path, settings: dict[str, Any] | None = None) -> CrossEncoder:
    """With torch, or with OpenVINO if there are settings; on OMP_NUM_THREADS threads."""
    if settings is None:
        return CrossEncoder(str(model), device="cpu")
    threads = {"INFERENCE_NUM_THREADS": os.environ["OMP_NUM_THREADS"]}
    return CrossEncoder(
        str(model), device="cpu", backend="openvino", model_kwargs={"ov_config": threads} | settings
    )


def serve(encoder: CrossEncoder) -> None:
    """Answer every line until there are no more."""
    for line in sys.stdin:
        asked = json.loads(line)
        pairs = [(query, passage) for query, passage in asked["pairs"]]
        start = time.perf_counter()
        scores = encoder.predict(
            pairs, batch_size=asked["batch"], show_progress_bar=False, activation_fn=torch.nn.Identity()
        )
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "scores": scores.tolist()}), flush=True)


def main() -> None:
    verb, name, *folders = sys.argv[1:]
    model, folder = map(Path, folders)
    encoder: CrossEncoder | None = None
    with contextlib.redirect_stdout(sys.stderr):  # for progress bars
        if verb == "export":
            export(name, model, folder)
        elif name == "torch":
            encoder = load(model)
        else:
            encoder = load(folder, {"file_name": FILES[name]})
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    print(json.dumps({"versions": versions, "threads": torch.get_num_threads()}), flush=True)
    if encoder:
        serve(encoder)


if __name__ == "__main__":
    main()
