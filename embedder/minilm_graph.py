"""all-MiniLM-L6-v2 as an ONNX graph, made from its weights: in fp32 as published, or in int8 with fixed ranges.

Both take token ids, int32 (texts, tokens), of texts of one length, and give unit vectors, float32 (texts, 384). One
length a batch needs no padding and no mask, so that a text's vector does not depend on its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from embedder.minilm_files import WINDOW_PIECES
from embedder.minilm_ranges import LOUD_CHANNELS, LOUD_UNITS, RANGES

DIMENSIONS = 384
LAYERS = 6
HEADS = 12
EPSILON = 1e-12  # layer_norm_eps of its configuration

# Weights use 7 of their 8 bits. Then no sum of two products overflows the 16 bits in which processors without VNNI add
# them up, and every processor gives the same vectors. It costs 0.001 of the mean cosine to fp32.
WEIGHT_STEPS = 63
ACTIVATION_STEPS = 255

Weights = Mapping[str, NDArray[np.float32]]


def fp32(weights: Weights) -> onnx.ModelProto:
    return build(weights, Fp32(Graph(), weights))


def int8(weights: Weights) -> onnx.ModelProto:
    return build(weights, Int8(Graph(), weights))


class Graph:
    """Nodes and constants in the order in which they are added; a node is known by the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def add(self, operator: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any) -> str:
        output = output or f"{operator}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, domain=domain, **attributes))
        return output


class Fp32:
    """Word embeddings and linear layers as published."""

    def __init__(self, graph: Graph, weights: Weights) -> None:
        self.graph = graph
        self.weights = weights

    def words(self, ids: str) -> str:
        words = self.graph.constant("words", self.weights["embeddings.word_embeddings.weight"])
        return self.graph.add("Gather", words, ids)

    def linear(self, values: str, name: str) -> str:
        product = self.graph.add("MatMul", values, self.graph.constant(f"{name}.w", self.weights[f"{name}.weight"].T))
        return self.graph.add("Add", product, self.graph.constant(f"{name}.b", self.weights[f"{name}.bias"]))


class Int8:
    """Word embeddings with a scale for each word; linear layers with 8-bit activations, whose range is fixed, and
    7-bit weights, with a scale for each output.

    Taking the range from the batch at hand (dynamic quantisation) is no more exact, and lets the neighbours of a text
    change its vector. But a few activations, nearly all of the tokens [CLS] and [SEP], are so large that the steps of
    all others would be three to four times as coarse: `channel_factors` and `split_units` make them smaller.
    """

    def __init__(self, graph: Graph, weights: Weights) -> None:
        self.graph = graph
        self.weights = {**weights}
        self.quantized: set[str] = set()
        for layer in range(LAYERS):
            split_units(self.weights, f"encoder.layer.{layer}.", f"{layer}.units")

    def words(self, ids: str) -> str:
        words = self.weights["embeddings.word_embeddings.weight"]
        scales = np.abs(words).max(axis=1, keepdims=True) / np.float32(127)
        rows = self.graph.add("Gather", self.graph.constant("words", np.rint(words / scales).astype(np.int8)), ids)
        scale = self.graph.add("Gather", self.graph.constant("words.scale", scales), ids)
        return self.graph.add("Mul", self.graph.add("Cast", rows, to=TensorProto.FLOAT), scale)

    def linear(self, values: str, name: str) -> str:
        self._quantize(values)
        weight = self.weights[f"{name}.weight"].T
        if values in LOUD_CHANNELS:
            weight = weight * channel_factors(values)[:, None]
        scales = np.abs(weight).max(axis=0) / np.float32(WEIGHT_STEPS)
        scales[scales == 0] = 1
        return self.graph.add(
            "MatMulIntegerToFloat",
            f"{values}.quantized",
            self.graph.constant(f"{name}.w", np.rint(weight / scales).astype(np.int8)),
            f"{values}.scale",
            self.graph.constant(f"{name}.scale", scales),
            f"{values}.zero",
            self.graph.constant(f"{name}.zero", np.zeros(len(scales), np.int8)),
            self.graph.constant(f"{name}.b", self.weights[f"{name}.bias"]),
            domain="com.microsoft",
        )

    def _quantize(self, values: str) -> None:
        """Adds the nodes that quantise these activations, unless another linear layer has asked for them before."""
        if values in self.quantized:
            return
        self.quantized.add(values)
        low, high = RANGES[values]
        scale = self.graph.constant(f"{values}.scale", np.float32((high - low) / ACTIVATION_STEPS))
        zero = self.graph.constant(f"{values}.zero", np.uint8(round(-low / (high - low) * ACTIVATION_STEPS)))
        source = values
        if values in LOUD_CHANNELS:
            source = self.graph.add("Mul", values, self.graph.constant(f"{values}.quiet", 1 / channel_factors(values)))
        self.graph.add("QuantizeLinear", source, scale, zero, output=f"{values}.quantized")


def channel_factors(values: str) -> NDArray[np.float32]:
    """The factor by which each channel is divided before it is quantised, and its weights are multiplied."""
    factors = np.ones(DIMENSIONS, np.float32)
    low, high = RANGES[values]
    for channel, largest in LOUD_CHANNELS[values].items():
        factors[channel] = largest / max(-low, high)
    return factors


def split_units(weights: dict[str, NDArray[np.float32]], layer: str, values: str) -> None:
    """Shares a hidden unit that goes beyond the range's end h among several, each cut off at h.

    gelu(v) is about min(gelu(v), h) + min(gelu(v - h), h) + ..., so that the further units differ in their bias only,
    and the cutting off is what quantisation does anyhow. At most 16 more units: 1 % of the layer's work.
    """
    into, out = f"{layer}intermediate.dense", f"{layer}output.dense"
    high = RANGES[values][1]
    further = [
        (unit, step * high)
        for unit, largest in LOUD_UNITS[values].items()
        for step in range(1, math.ceil(largest / high))
    ]
    units = [unit for unit, _ in further]
    less = np.array([below for _, below in further], np.float32)
    spare = -len(units) % 16  # the kernels take 16 outputs at a time
    rows = np.concatenate([weights[f"{into}.weight"], weights[f"{into}.weight"][units]])
    biases = np.concatenate([weights[f"{into}.bias"], weights[f"{into}.bias"][units] - less])
    columns = np.concatenate([weights[f"{out}.weight"], weights[f"{out}.weight"][:, units]], axis=1)
    weights[f"{into}.weight"] = np.pad(rows, ((0, spare), (0, 0)))
    weights[f"{into}.bias"] = np.pad(biases, (0, spare))
    weights[f"{out}.weight"] = np.pad(columns, ((0, 0), (0, spare)))


def build(weights: Weights, layers: Fp32 | Int8) -> onnx.ModelProto:
    """The whole graph. The inputs of linear layers are named "0.attention", "0.context", "0.feed", "0.units", ..."""
    graph = layers.graph

    def normalized(values: str, name: str, output: str) -> str:
        scale = graph.constant(f"{name}.scale", weights[f"{name}.weight"])
        bias = graph.constant(f"{name}.b", weights[f"{name}.bias"])
        # Not the fused SkipLayerNormalization: it takes nine times as long, and cost a fifth of the whole model's time.
        return graph.add("LayerNormalization", values, scale, bias, output=output, axis=-1, epsilon=EPSILON)

    embedded = graph.add("Add", layers.words("ids"), positions(graph, weights))
    values = normalized(embedded, "embeddings.LayerNorm", "0.attention")
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}."
        heads = [layers.linear(values, f"{layer}attention.self.{part}") for part in ("query", "key", "value")]
        context = graph.add(
            "MultiHeadAttention", *heads, output=f"{number}.context", domain="com.microsoft", num_heads=HEADS
        )
        mixed = graph.add("Add", layers.linear(context, f"{layer}attention.output.dense"), values)
        values = normalized(mixed, f"{layer}attention.output.LayerNorm", f"{number}.feed")
        hidden = layers.linear(values, f"{layer}intermediate.dense")
        units = graph.add("Gelu", hidden, output=f"{number}.units", domain="com.microsoft")
        fed = graph.add("Add", layers.linear(units, f"{layer}output.dense"), values)
        values = normalized(fed, f"{layer}output.LayerNorm", f"{number + 1}.attention")
    mean = graph.add("ReduceMean", values, graph.constant("axis", np.array([1])), keepdims=0)
    graph.add("LpNormalization", mean, output="vectors", axis=1, p=2)

    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "all-MiniLM-L6-v2",
            [helper.make_tensor_value_info("ids", TensorProto.INT32, ["texts", "tokens"])],
            [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", DIMENSIONS])],
            list(graph.constants.values()),
        ),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)],
        ir_version=9,
    )


def positions(graph: Graph, weights: Weights) -> str:
    """The embeddings of the texts' positions, with that of the only token type added."""
    types = weights["embeddings.token_type_embeddings.weight"][0]
    table = graph.constant("positions", weights["embeddings.position_embeddings.weight"][:WINDOW_PIECES] + types)
    length = graph.add("Shape", "ids", start=1)
    return graph.add("Slice", table, graph.constant("start", np.array([0])), length)
