"""The OpenVINO graph of an encoder, built from the weights: embeddings, layers, poolings, heads.

Nothing is traced or converted: XLM-RoBERTa and BERT differ only in how positions are numbered, and the
caller numbers them. Texts are packed one after the other without padding, so that no matrix product
spends time on padding; only attention sees them as padded rows. Shapes: m tokens in all, b texts, t
tokens in the longest, width d, h attention heads, r rows of the answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
from openvino import opset13 as op

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import FloatArray, Precision
from app.engine.smoothing import smoothing, to_bf16

if TYPE_CHECKING:  # it imports torch
    from app.engine.weights import Weights

LargestInputs = dict[str, FloatArray]  # name of a linear layer -> (columns,) largest |input|

# The minimum of gelu is -0.16997. Shifted by this its values are positive, so eight bits need to cover
# only half the range.
GELU_SHIFT = 0.17
SMOOTHING = 0.6  # SmoothQuant's alpha; on multilingual text 0.5 and 0.65 measured better than 0.35 and 0.8


def build_graph(
    checkpoint: Checkpoint,
    weights: "Weights",
    precision: Precision,
    largest: LargestInputs | None = None,
) -> ov.Model:
    """Build the graph, with matrices stored for `precision`; int8 needs the largest inputs to expect.

    Inputs: `ids` (m,); `positions` (m,); `rows` (b, t), the index among the m tokens of each token in
    the padded rows; `back` (m,), the index among the b x t padded tokens of each token; `mask` (b, 1, 1,
    t), 0, or hugely negative for padding; `pool` (r, m), the weights of each answer's mean over tokens;
    and for each head of the checkpoint, by its name, the indices of the tokens to compute it for.
    Outputs: `pooled` (r, d); of the heads `sparse` (tokens asked for, 1) and `colbert` (tokens asked
    for, d). The heads are plain linear layers: the caller adds relu, maximum per token id and L2.
    """
    return _Builder(checkpoint, weights, precision, largest or {}).graph()


@dataclass
class _Builder:
    checkpoint: Checkpoint
    weights: "Weights"
    precision: Precision
    largest: LargestInputs

    def graph(self) -> ov.Model:
        inputs = {
            "ids": op.parameter([-1], np.int32),
            "positions": op.parameter([-1], np.int32),
            "rows": op.parameter([-1, -1], np.int32),
            "back": op.parameter([-1], np.int32),
            "mask": op.parameter([-1, 1, 1, -1], np.float32),
            "pool": op.parameter([-1, -1], np.float32),
        } | {head: op.parameter([-1], np.int32) for head in self.checkpoint.heads}
        for name, node in inputs.items():
            node.set_friendly_name(name)
        x = self._embeddings(inputs["ids"], inputs["positions"])
        for layer in range(self.checkpoint.layers):
            x = self._layer(x, inputs, f"encoder.layer.{layer}.")
        # Every output ends in a matrix product: the plugin computes everything after the last product
        # in float32, and that would include the residual stream back to the embeddings.
        outputs = {"pooled": op.matmul(inputs["pool"], x, False, False)}
        for name in self.checkpoint.heads:
            asked = op.gather(x, inputs[name], op.constant(np.int32(0)))
            outputs[name] = self._linear(asked, *self.weights.head(name))
        results = []
        for name, node in outputs.items():
            results.append(op.result(node))
            results[-1].set_friendly_name(name)
        return ov.Model(results, list(inputs.values()), "encoder")

    def _embeddings(self, ids: Any, positions: Any) -> Any:
        found, d = self.checkpoint, self.checkpoint.width
        words = self.weights("embeddings.word_embeddings.weight", found.vocabulary, d)
        table = self.weights.position_table()
        word, place = (
            op.gather(self._stored(matrix), index, op.constant(np.int32(0)))
            for matrix, index in ((words, ids), (table, positions))
        )
        return self._norm(op.add(word, place), "embeddings.LayerNorm")

    def _layer(self, x: Any, inputs: Mapping[str, Any], name: str) -> Any:
        """Transformer layer with norms after the sums. (m, d) -> (m, d)"""
        d, inner = self.checkpoint.width, self.checkpoint.inner
        attended = self._attention(x, inputs, f"{name}attention.self")
        attended = self._dense(attended, f"{name}attention.output.dense", (d, d))
        x = self._norm(op.add(attended, x), f"{name}attention.output.LayerNorm")
        grown = op.gelu(self._dense(x, f"{name}intermediate.dense", (inner, d)), "erf")
        shrunk = self._dense(grown, f"{name}output.dense", (d, inner), after_gelu=True)
        return self._norm(op.add(shrunk, x), f"{name}output.LayerNorm")

    def _attention(self, x: Any, inputs: Mapping[str, Any], name: str) -> Any:
        """softmax(q k^T / sqrt(d / h) + mask) v, for each text. (m, d) -> (m, d)"""
        d, h = self.checkpoint.width, self.checkpoint.attention_heads
        parts = [f"{name}.{part}" for part in ("query", "key", "value")]
        matrix = np.concatenate([self.weights(f"{part}.weight", d, d) for part in parts])
        bias = np.concatenate([self.weights(f"{part}.bias", d) for part in parts])
        first = op.constant(np.int32(0))
        heads_first = op.constant(np.array([0, 2, 1, 3]))
        projected = self._product(x, name, matrix, bias)  # (m, 3 d)
        padded = op.gather(projected, inputs["rows"], first)  # (b, t, 3 d)
        split = op.reshape(padded, op.constant(np.array([0, 0, 3 * h, d // h])), True)
        q, k, v = op.split(op.transpose(split, heads_first), op.constant(np.int64(1)), 3).outputs()
        attended = op.scaled_dot_product_attention(q, k, v, inputs["mask"])  # (b, h, t, d / h)
        rejoined = op.reshape(op.transpose(attended, heads_first), op.constant(np.array([-1, d])), False)
        return op.gather(rejoined, inputs["back"], first)

    def _dense(self, x: Any, name: str, shape: tuple[int, int], after_gelu: bool = False) -> Any:
        matrix = self.weights(f"{name}.weight", *shape)
        return self._product(x, name, matrix, self.weights(f"{name}.bias", shape[0]), after_gelu)

    def _product(
        self, x: Any, name: str, matrix: FloatArray, bias: FloatArray, after_gelu: bool = False
    ) -> Any:
        """x matrix^T + bias, in the graph's precision. (m, columns) -> (m, rows)"""
        if self.precision != "int8":
            return self._linear(x, matrix, bias)
        scale = smoothing(self.largest[name], matrix, SMOOTHING)
        matrix = matrix * scale
        if after_gelu:
            x = op.add(x, _number(GELU_SHIFT))
        return self._quantized(op.multiply(x, op.constant(1 / scale)), matrix, bias, scale, after_gelu)

    def _quantized(
        self, x: Any, matrix: FloatArray, bias: FloatArray, scale: FloatArray, positive: bool
    ) -> Any:
        """An int8 by int8 product: each row of x has a scale, found at run time, and so has each matrix row.

        Each token is first divided by its largest magnitude. So the plugin can quantise with one fixed
        range, for which it has its fastest kernels, and every token still has its own scale.
        """
        step = np.maximum(np.abs(matrix).max(axis=1, keepdims=True), 1e-8) / 127
        rounded = np.rint(matrix / step).astype(np.int8)
        last = op.constant(np.array([-1]))
        if positive:
            largest = op.reduce_max(x, last, True)
            lowest, levels = _number(0.0), 256
            # Subtract from the bias what the shift adds to the product with the rounded matrix.
            bias = bias - GELU_SHIFT * (rounded * step / scale).sum(axis=1)
        else:
            largest = op.maximum(op.reduce_max(op.abs(x), last, True), _number(1e-8))
            lowest, levels = _number(-1.0), 255
        unit = op.multiply(x, op.divide(_number(1.0), largest))
        unit = op.fake_quantize(unit, lowest, _number(1.0), lowest, _number(1.0), levels)
        stored = op.multiply(op.convert(op.constant(rounded), "f32"), op.constant(step.astype(np.float32)))
        product = op.multiply(op.matmul(unit, stored, False, True), largest)
        return op.add(product, op.constant(bias.astype(np.float32)))

    def _linear(self, x: Any, matrix: FloatArray, bias: FloatArray) -> Any:
        return op.add(op.matmul(x, self._stored(matrix), False, True), op.constant(bias))

    def _norm(self, x: Any, name: str) -> Any:
        d = self.checkpoint.width
        centred = op.mvn(x, op.constant(np.array([-1])), True, self.checkpoint.epsilon, "inside_sqrt")
        gained = op.multiply(centred, op.constant(self.weights(f"{name}.weight", d)))
        return op.add(gained, op.constant(self.weights(f"{name}.bias", d)))

    def _stored(self, matrix: FloatArray) -> Any:
        """A constant in the precision that is stored on disk, converted to float32 for its users."""
        if self.precision == "fp32":
            return op.constant(np.ascontiguousarray(matrix))
        tensor = ov.Tensor(ov.Type.bf16, ov.Shape(matrix.shape))
        tensor.data.view(np.uint16).reshape(matrix.shape)[:] = to_bf16(matrix)
        return op.convert(ov.op.Constant(tensor), "f32")


def _number(value: float) -> Any:
    return op.constant(np.float32(value))
