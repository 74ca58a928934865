"""A thin writer of ONNX graphs: one method an operator, every node named after its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

import vptkit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .constants_file import ConstantsFile

__all__ = ["IR_VERSION", "OPSET", "Builder"]

OPSET = 17  # the newest that TensorRT 8.6 parses; LayerNormalization arrived with it
IR_VERSION = 8


class Builder:
    """Collects nodes and initializers; every value is a name.

    All floating-point constants are written in one type: float32, or float64 to test the algebra
    apart from rounding.
    """

    def __init__(
        self,
        dtype: type[np.floating[Any]] = np.float32,
        constants: ConstantsFile | None = None,
    ) -> None:
        """Start an empty graph.

        Args:
            dtype: of floating-point constants.
            constants: where the large ones go; without, they stand in the graph itself.
        """
        self.dtype, self._constants = dtype, constants
        self.elem = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        # filled in place: a large ViT's weights are not copied from message to message
        self._model = onnx.ModelProto()
        self._names: set[str] = set()

    def op(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append a node; its single output has the node's name."""
        self._names.add(name)
        node = helper.make_node(kind, list(inputs), [name], name=name, **attributes)
        self._model.graph.node.append(node)
        return name

    def const(self, name: str, value: NDArray[Any]) -> str:
        """An initializer; floating-point values are cast to the graph's type, once, here."""
        if name in self._names:
            return name
        self._names.add(name)
        dtype = np.dtype(self.dtype) if value.dtype.kind == "f" else value.dtype
        tensor = self._model.graph.initializer.add()
        tensor.name = name
        tensor.data_type = helper.np_dtype_to_tensor_dtype(dtype)
        tensor.dims.extend(value.shape)
        if self._constants is not None and self._constants.takes(value, dtype):
            self._constants.add(name, value, dtype)
        else:
            tensor.raw_data = value.astype(dtype.newbyteorder("<"), order="C").tobytes()
        return name

    def ints(self, values: Sequence[int]) -> str:
        """An int64 constant, shared by value."""
        text = "_".join(str(value) for value in values)
        return self.const(f"ints/{text}", np.asarray(values, dtype=np.int64))

    def cast(self, x: str, name: str) -> str:
        """To the graph's floating-point type."""
        return self.op("Cast", [x], name, to=self.elem)

    def linear(self, x: str, w: NDArray[Any], b: NDArray[Any] | None, name: str) -> str:
        """X w + b, b left out where it is None."""
        product = f"{name}/MatMul" if b is not None else name
        y = self.op("MatMul", [x, self.const(f"{name}.weight", w)], product)
        return y if b is None else self.op("Add", [y, self.const(f"{name}.bias", b)], name)

    def layer_norm(
        self, x: str, gamma: NDArray[Any], beta: NDArray[Any], eps: float, name: str
    ) -> str:
        """LayerNormalization over the last axis."""
        inputs = [x, self.const(f"{name}.weight", gamma), self.const(f"{name}.bias", beta)]
        return self.op("LayerNormalization", inputs, name, axis=-1, epsilon=eps)

    def normalize(self, x: str, width: int, eps: float, name: str) -> str:
        """x̂: LayerNormalization without affine (the operator wants a scale: ones)."""
        ones = self.const(f"ones.{width}", np.ones(width))
        zeros = self.const(f"zeros.{width}", np.zeros(width))
        return self.op("LayerNormalization", [x, ones, zeros], name, axis=-1, epsilon=eps)

    def rms_normalize(self, x: str, eps: float, name: str) -> str:
        """x̂ = x / sqrt(mean x² + eps) over the last axis, in operators of opset 17."""
        square = self.op("Mul", [x, x], f"{name}/square")
        mean = self.op("ReduceMean", [square], f"{name}/mean", axes=[-1], keepdims=1)
        kept = self.op("Add", [mean, self.const(f"scalar/{eps!r}", np.asarray(eps))], f"{name}/eps")
        return self.op("Div", [x, self.op("Sqrt", [kept], f"{name}/root")], name)

    def rotate(self, x: str, cos: str, sin: str, width: int, name: str) -> str:
        """X cos + swap(x) sin; swap exchanges the halves of the last axis, `width` long."""
        half = width // 2
        parts = [
            self.slice(x, 3, half, width, f"{name}/second"),
            self.slice(x, 3, 0, half, f"{name}/first"),
        ]
        swapped = self.op("Concat", parts, f"{name}/swapped", axis=3)
        along = self.op("Mul", [x, cos], f"{name}/cos")
        across = self.op("Mul", [swapped, sin], f"{name}/sin")
        return self.op("Add", [along, across], f"{name}/rotated")

    def reshape(self, x: str, shape: Sequence[int], name: str) -> str:
        """0 keeps a dimension, -1 takes the rest."""
        return self.op("Reshape", [x, self.ints(shape)], name)

    def transpose(self, x: str, perm: Sequence[int], name: str) -> str:
        """Permute dimensions."""
        return self.op("Transpose", [x], name, perm=list(perm))

    def slice(self, x: str, axis: int, start: int, stop: int, name: str) -> str:
        """x[start:stop] along one axis."""
        inputs = [x, self.ints([start]), self.ints([stop]), self.ints([axis])]
        return self.op("Slice", inputs, name)

    def top_k(self, x: str, k: int, name: str, *, largest: bool = True) -> tuple[str, str]:
        """The k largest (smallest) along the last axis, in order: values and int64 indices.

        Of equal values the one with the lower index comes first, as the operator is defined.
        """
        self._names.add(name)
        outputs = [f"{name}/values", f"{name}/indices"]
        node = helper.make_node(
            "TopK", [x, self.ints([k])], outputs, name=name, axis=-1, largest=int(largest), sorted=1
        )
        self._model.graph.node.append(node)
        return outputs[0], outputs[1]

    def batched(self, constant: str, name: str, rank: int, batch: int | None, source: str) -> str:
        """A constant [1, …], repeated for every image.

        Args:
            constant: its name.
            name: head of the new value's name.
            rank: number of its dimensions.
            batch: a fixed batch size, or None to read it off `source` when running.
            source: the graph's input.
        """
        if batch == 1:
            return constant
        ones = [1] * (rank - 1)
        if batch is not None:
            target = self.ints([batch, *ones])
        else:
            if "batch" not in self._names:
                self.slice(self.op("Shape", [source], "batch/shape"), 0, 0, 1, "batch")
            target = f"batch/{rank}"
            if target not in self._names:
                self.op("Concat", ["batch", self.ints(ones)], target, axis=0)
        return self.op("Expand", [constant, target], f"{name}/batch")

    def activation(self, kind: str, x: str, name: str) -> str:
        """GELU (erf), tanh-GELU, QuickGELU or SiLU, in operators of opset 17."""

        def c(value: float) -> str:
            return self.const(f"scalar/{value!r}", np.asarray(value))

        if kind == "silu":
            return self.op("Mul", [x, self.op("Sigmoid", [x], f"{name}/gate")], name)
        if kind == "quick_gelu":
            gate = self.op("Mul", [x, c(1.702)], f"{name}/scaled")
            return self.op("Mul", [x, self.op("Sigmoid", [gate], f"{name}/gate")], name)
        if kind == "gelu":
            inner = self.op("Div", [x, c(float(np.sqrt(2.0)))], f"{name}/scaled")
            bent = self.op("Erf", [inner], f"{name}/Erf")
        else:
            cube = self.op("Mul", [x, self.op("Mul", [x, x], f"{name}/square")], f"{name}/cube")
            small = self.op("Mul", [cube, c(0.044715)], f"{name}/small")
            total = self.op("Add", [x, small], f"{name}/sum")
            inner = self.op("Mul", [total, c(float(np.sqrt(2.0 / np.pi)))], f"{name}/scaled")
            bent = self.op("Tanh", [inner], f"{name}/Tanh")
        shifted = self.op("Add", [bent, c(1.0)], f"{name}/shifted")
        product = self.op("Mul", [x, shifted], f"{name}/product")
        return self.op("Mul", [product, c(0.5)], name)

    def model(
        self,
        name: str,
        inputs: Sequence[tuple[str, int, Sequence[int | str]]],
        *outputs: tuple[str, Sequence[int | str]],
    ) -> onnx.ModelProto:
        """Finish: (name, element type, shape) of each input, (name, shape) of each output."""
        model, graph = self._model, self._model.graph
        graph.name = name
        graph.input.extend(helper.make_tensor_value_info(*value) for value in inputs)
        for output, shape in outputs:
            graph.output.append(helper.make_tensor_value_info(output, self.elem, list(shape)))
        model.ir_version = IR_VERSION
        model.producer_name, model.producer_version = "vptkit", vptkit.__version__
        model.opset_import.append(helper.make_opsetid("", OPSET))
        return model


UINT8, FLOAT, INT64 = TensorProto.UINT8, TensorProto.FLOAT, TensorProto.INT64
