"""A policy as an ONNX model: `observation` [N, O] of float32 to `action` [N, A] in the environment's units and type."""

# Of an extra.
# pyright: reportMissingImports=false

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from evolute.export.operations import Affine, Elu, Normalise, Operation, Relu, Residual, Scale, Tanh, Units, operations_of, refuse
from evolute.policy import Policy

OPSET = 17
# Of the file's form: the oldest that has this opset, so that old runtimes read it.
IR_VERSION = 8


class Graph:
    """Nodes in a row, each of which takes the output of the one before."""

    def __init__(self, value: str):
        self.value, self.nodes, self.constants = value, [], []

    def constant(self, array: np.ndarray) -> str:
        """Keep an array, and return its name."""
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), f"constant_{len(self.constants)}"))
        return self.constants[-1].name

    def add(self, name: str, *constants: np.ndarray, **attributes: Any) -> str:
        """Apply an operator of ONNX to the value so far and constants; return the name of what comes out."""
        inputs = [self.value, *map(self.constant, constants)]
        self.value = f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(name, inputs, [self.value], **attributes))
        return self.value

    def add_values(self, one: str, other: str) -> None:
        """Add two values."""
        self.value = f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node("Add", [one, other], [self.value]))

    def extend(self, operation: Operation) -> None:
        """Apply an operation of a policy; raises UserError for one that is unknown here."""
        match operation:
            case Scale(mean, factor, limit):
                self.add("Sub", mean)
                self.add("Mul", factor)
                self.add("Clip", np.array(-limit, np.float32), np.array(limit, np.float32))
            case Affine(w, b):
                self.add("Gemm", w, b)
            case Relu():
                self.add("Relu")
            case Tanh():
                self.add("Tanh")
            case Elu():
                self.add("Elu")
            case Normalise(units, epsilon):
                self.add("LayerNormalization", np.ones(units, np.float32), epsilon=epsilon)
            case Residual(inner):
                before = self.value
                for one in inner:
                    self.extend(one)
                self.add_values(before, self.value)
            case Units(low, high):
                self._units(low, high)
            case _:
                refuse(operation, "onnx")

    def _units(self, low: np.ndarray, high: np.ndarray) -> None:
        """Scale to the bounds as `in_units_of` does, where their distance is no number, too."""
        unit = self.add("Cast", to=onnx.TensorProto.DOUBLE)
        least, largest = 0.5 * low.astype(np.float64), 0.5 * high.astype(np.float64)
        self.add("Mul", -least)
        below = self.add("Add", least)
        self.value = unit
        self.add("Mul", largest)
        above = self.add("Add", largest)
        self.add_values(below, above)
        self.add("Cast", to=helper.np_dtype_to_tensor_dtype(low.dtype))
        self.add("Max", low)
        self.add("Min", high)


def model(policy: Policy) -> bytes:
    """Return a policy as the content of an ONNX file; raises UserError where its network cannot be expressed."""
    graph = Graph("observation")
    for operation in operations_of(policy):
        graph.extend(operation)
    graph.nodes[-1].output[0] = "action"
    observation = helper.make_tensor_value_info("observation", onnx.TensorProto.FLOAT, ["N", len(policy.weights[0][0])])
    kind = helper.np_dtype_to_tensor_dtype(policy.low.dtype)
    action = helper.make_tensor_value_info("action", kind, ["N", len(policy.low)])
    made = helper.make_model(
        helper.make_graph(graph.nodes, "policy", [observation], [action], graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="evolute",
    )
    helper.set_model_props(made, {"env": policy.env})
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def actions(content: bytes, observations: np.ndarray) -> np.ndarray:
    """Return the actions [N, A] of an ONNX file's content for observations [N, O], computed by onnxruntime."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["action"], {"observation": observations})[0])
