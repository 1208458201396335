"""Gated blocks in the graph of a SavedModel, and that graph without skipping.

A gated block is an `If` that asks whether any row runs (Eq. 1); its branches
are functions of the graph's library.
"""

import copy
import dataclasses
from collections.abc import Iterator

import tensorflow as tf
from tensorflow.core.framework import function_pb2
from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2


@dataclasses.dataclass(frozen=True)
class Block:
    """A gated block of a graph.

    Attributes:
        name: String, of its `If`.
        outside: The function it stands in.
        convolutions: Int, how many are inside of the branch that runs it.
    """

    name: str
    outside: function_pb2.FunctionDef
    convolutions: int


def _count_convolutions(function, functions):
    count = 0
    for node in function.node_def:
        count += "Conv2D" in node.op
        if node.op.endswith("PartitionedCall"):
            called = functions[node.attr["f"].func.name]
            count += _count_convolutions(called, functions)
    return count


def _decision(function, node):
    """What an `If` asks of the rows, or `None` if it is no gated block."""
    if node.op not in ("If", "StatelessIf"):
        return None
    asked = node.input[0].split(":")[0]
    for other in function.node_def:
        if other.name == asked and other.op in ("Any", "Reshape"):
            return other.input[0]
    return None


def blocks(meta_graph: meta_graph_pb2.MetaGraphDef) -> Iterator[Block]:
    """The gated blocks in order; twice, where one image has its own form."""
    library = meta_graph.graph_def.library.function
    functions = {function.signature.name: function for function in library}
    for function in functions.values():
        for node in function.node_def:
            if _decision(function, node):
                branch = functions[node.attr["then_branch"].func.name]
                count = _count_convolutions(branch, functions)
                yield Block(node.name, function, count)


def masked(
    meta_graph: meta_graph_pb2.MetaGraphDef,
) -> meta_graph_pb2.MetaGraphDef:
    """The same graph with every gated block computed for all rows and mixed.

    Args:
        meta_graph: What `sessions.read_meta_graph` returned.

    Returns:
        A changed copy.
    """
    meta_graph = copy.deepcopy(meta_graph)
    for function in meta_graph.graph_def.library.function:
        for node in list(function.node_def):
            decision = _decision(function, node)
            if decision:
                nodes = _mixed(node, decision)
                function.node_def.remove(node)
                function.node_def.extend(nodes)
    return meta_graph


def _mixed(node, decision):
    """Nodes that run both branches of `node` and select rows."""
    name = node.name
    ones = _node("OnesLike", f"{name}_ones", [decision], T=tf.bool)
    shape = _node("Const", f"{name}_shape", [], dtype=tf.int32)
    shape.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([-1]))
    rows = _node(
        "Reshape",
        f"{name}_rows",
        [decision, f"{shape.name}:output:0"],
        T=tf.bool,
        Tshape=tf.int32,
    )
    inputs = list(node.input[1:])
    all_rows = [f"{ones.name}:y:0" if i == decision else i for i in inputs]
    calls = []
    for branch, given in (("then", all_rows), ("else", inputs)):
        call = _node("PartitionedCall", f"{name}_{branch}", given)
        call.attr["f"].CopyFrom(node.attr[f"{branch}_branch"])
        for key in ("Tin", "Tout"):
            call.attr[key].CopyFrom(node.attr[key])
        calls.append(call)
    picks = [
        _node(
            "Select",
            f"{name}_pick{index}",
            [
                f"{rows.name}:output:0",
                *(f"{call.name}:output:{index}" for call in calls),
            ],
            T=dtype,
        )
        for index, dtype in enumerate(node.attr["Tout"].list.type)
    ]
    # Under the old name, for whoever reads it.
    joined = _node("IdentityN", name, [f"{p.name}:output:0" for p in picks])
    joined.attr["T"].CopyFrom(node.attr["Tout"])
    return [ones, shape, rows, *calls, *picks, joined]


def _node(op, name, inputs, **types):
    node = node_def_pb2.NodeDef(op=op, name=name, input=inputs)
    for key, dtype in types.items():
        node.attr[key].type = tf.as_dtype(dtype).as_datatype_enum
    return node
