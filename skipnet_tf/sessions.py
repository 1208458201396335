"""A SavedModel in a plain session, which is how TF Serving loads it.

`tf.saved_model.load` goes another way through TensorFlow and accepts graphs
that a server fails on.
"""

import dataclasses
import os
import re
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from google.protobuf import message
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.core.protobuf import saved_model_pb2


@dataclasses.dataclass(frozen=True)
class Executed:
    """An operation that ran.

    Attributes:
        name: String, with the functions that it was inlined from.
        op: String, its kind.
        rows: Int, size of the first output's first dimension; 0 for a scalar.
    """

    name: str
    op: str
    rows: int


def read_meta_graph(path: str) -> meta_graph_pb2.MetaGraphDef:
    """The graph and signatures of a version.

    Args:
        path: String, the version's folder.

    Returns:
        The meta graph tagged "serve".

    Raises:
        ValueError: If there is none.
    """
    file = os.path.join(path, "saved_model.pb")
    saved = saved_model_pb2.SavedModel()
    try:
        with tf.io.gfile.GFile(file, "rb") as opened:
            saved.ParseFromString(opened.read())
    except (tf.errors.OpError, message.DecodeError, IOError) as error:
        raise ValueError(
            f"`path` must be the folder of a version. Received: path={path}, "
            f"in which saved_model.pb cannot be read"
        ) from error
    for meta_graph in saved.meta_graphs:
        if "serve" in meta_graph.meta_info_def.tags:
            return meta_graph
    raise ValueError(
        '`path` must hold a graph tagged "serve", as TF Serving asks for. '
        f"Received: path={path}"
    )


class Session:
    """A SavedModel or a changed graph of one, ready to answer.

    Args:
        source: String, the folder of a version, for the loader that servers
            use; or a meta graph without variables.
        threads: Int, for the operations of one call; the first session of a
            process decides for all. Defaults to `0`, one for each core.

    Attributes:
        signatures: Dict from names to `SignatureDef`.
    """

    def __init__(
        self, source: str | meta_graph_pb2.MetaGraphDef, threads: int = 0
    ):
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=threads,
            inter_op_parallelism_threads=threads,
        )
        graph = tf.Graph()
        with graph.as_default():
            self._session = tf.compat.v1.Session(graph=graph, config=config)
            if isinstance(source, str):
                source = tf.compat.v1.saved_model.load(
                    self._session, ["serve"], source
                )
            else:
                tf.compat.v1.train.import_meta_graph(source)
        self.signatures = dict(source.signature_def)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._session.close()

    def run(self, signature: str, **inputs: np.ndarray) -> dict:
        """Outputs of a signature, by name, as arrays."""
        return self._run(signature, inputs)

    def trace(
        self, signature: str, **inputs: np.ndarray
    ) -> tuple[dict, list[Executed]]:
        """Outputs, and every operation that really ran."""
        metadata = tf.compat.v1.RunMetadata()
        options = tf.compat.v1.RunOptions(
            trace_level=tf.compat.v1.RunOptions.FULL_TRACE
        )
        outputs = self._run(
            signature, inputs, options=options, run_metadata=metadata
        )
        ran = [
            _executed(node)
            for device in metadata.step_stats.dev_stats
            for node in device.node_stats
        ]
        return outputs, [operation for operation in ran if operation]

    def callable(self, signature: str, *inputs: str) -> Callable:
        """A function of the named inputs' arrays, for calls without delay.

        It returns the outputs as a list.
        """
        found = self.signatures[signature]
        return self._session.make_callable(
            [output.name for output in found.outputs.values()],
            [found.inputs[name].name for name in inputs],
        )

    def _run(self, signature, inputs, **options):
        found = self.signatures[signature]
        return self._session.run(
            {name: output.name for name, output in found.outputs.items()},
            {found.inputs[name].name: inputs[name] for name in sorted(inputs)},
            **options,
        )


def _executed(node):
    # What an operation allocated may stand before its name.
    label = re.search(r"(\S+) = (\w+)\(", node.timeline_label)
    if not label:
        return None
    rows = 0
    if node.output:
        sizes = node.output[0].tensor_description.shape.dim
        rows = sizes[0].size if sizes else 0
    return Executed(*label.groups(), rows)
