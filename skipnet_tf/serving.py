"""What TF Serving reads beside the graph: warm-up requests and batching.

The messages of a warm-up record are TF Serving's `PredictionLog`; they are
declared here by their field numbers, because its Python package is large and
wanted by nobody who only exports.
"""

import os
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message
from google.protobuf import message_factory
from tensorflow.core.framework import tensor_pb2

_WARMUP = os.path.join("assets.extra", "tf_serving_warmup_requests")
_MOST_RECORDS = 1000  # TF Serving reads no more

# Read from the version's folder under --enable_per_model_batching_parameters.
# Batching is off without that flag, which is the faster way on CPUs.
_BATCHING = "batching_params.pbtxt"
BATCHING_PARAMETERS = """\
max_batch_size { value: 32 }
batch_timeout_micros { value: 5000 }
num_batch_threads { value: 2 }
max_enqueued_batches { value: 64 }
# A batch is filled up to one of these with copies of a row, which cost time.
allowed_batch_sizes: 1
allowed_batch_sizes: 4
allowed_batch_sizes: 8
allowed_batch_sizes: 16
allowed_batch_sizes: 32
"""


def write(
    folder: str, requests: Sequence[tuple[str, dict[str, np.ndarray]]]
) -> None:
    """Writes the files of one version.

    Args:
        folder: String, the version.
        requests: Sequence of `(signature, inputs)`, at most 1000, that a
            server answers before it calls the version ready.
    """
    if len(requests) > _MOST_RECORDS:
        raise ValueError(
            f"`requests` must be at most {_MOST_RECORDS}. "
            f"Received: {len(requests)} requests"
        )
    path = os.path.join(folder, _WARMUP)
    os.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as file:
        for signature, inputs in requests:
            file.write(_record(signature, inputs))
    with open(os.path.join(folder, _BATCHING), "w") as file:
        file.write(BATCHING_PARAMETERS)


def read_requests(folder: str) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The warm-up requests of a version, as `(signature, inputs)`.

    Args:
        folder: String, the version.

    Raises:
        ValueError: If a record is not a predict request.
    """
    path = os.path.join(folder, _WARMUP)
    if not os.path.exists(path):
        return
    for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
        try:
            request = _PredictionLog.FromString(record).predict_log.request
        except message.DecodeError as error:
            raise ValueError(f"{path} holds no prediction logs") from error
        if not request.inputs:
            raise ValueError(f"{path} holds something else than requests")
        yield (
            request.model_spec.signature_name,
            {name: _array(value) for name, value in request.inputs.items()},
        )


def _record(signature, inputs):
    log = _PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = signature
    for name, array in inputs.items():
        tensor = tf.make_tensor_proto(array)
        request.inputs[name] = tensor.SerializeToString()
    return log.SerializeToString(deterministic=True)


def _array(serialised):
    return tf.make_ndarray(tensor_pb2.TensorProto.FromString(serialised))


def _prediction_log():
    """The message class, with tensors as the bytes that they are on disk."""
    file = descriptor_pb2.FileDescriptorProto(
        name="skipnet_tf/warmup.proto",
        package="skipnet_tf.warmup",
        syntax="proto3",
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    messages = {
        "PredictionLog": [("predict_log", 6, "PredictLog")],
        "PredictLog": [("request", 1, "PredictRequest")],
        "PredictRequest": [
            ("model_spec", 1, "ModelSpec"),
            ("inputs", 2, "PredictRequest.InputsEntry"),
        ],
        "ModelSpec": [("signature_name", 3, kinds.TYPE_STRING)],
    }
    for name, fields in messages.items():
        _declare(file.message_type.add(name=name), fields)
    # A map is a repeated message of a key and a value.
    request = file.message_type[2]
    request.field[1].label = kinds.LABEL_REPEATED
    entry = request.nested_type.add(name="InputsEntry")
    entry.options.map_entry = True
    _declare(
        entry, [("key", 1, kinds.TYPE_STRING), ("value", 2, kinds.TYPE_BYTES)]
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("skipnet_tf.warmup.PredictionLog")
    )


def _declare(message, fields):
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, number, kind in fields:
        field = message.field.add(
            name=name, number=number, label=kinds.LABEL_OPTIONAL
        )
        if isinstance(kind, str):
            field.type = kinds.TYPE_MESSAGE
            field.type_name = f".skipnet_tf.warmup.{kind}"
        else:
            field.type = kind


_PredictionLog = _prediction_log()
