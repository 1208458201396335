"""TF Serving's gRPC API: PredictionService and ModelService."""

import contextlib
import math
from collections.abc import Iterator
from concurrent import futures

import grpc
import numpy as np
import predictor
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.apis import model_service_pb2_grpc
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

_STATUS = {code.value[0]: code for code in grpc.StatusCode}


def serve(
    model: predictor.Model, host: str, port: int, max_bytes: int, threads: int
) -> tuple[grpc.Server, int]:
    """Starts a server.

    Args:
        model: The model to serve.
        host: String, the address to listen at.
        port: Int, `0` takes a free one.
        max_bytes: Int, size of the largest request and answer.
        threads: Int, requests computed at the same time; others wait.

    Returns:
        The server, which `stop` ends, and its port.

    Raises:
        RuntimeError: If the port is taken.
    """
    server = grpc.server(
        futures.ThreadPoolExecutor(threads),
        options=[
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.max_send_message_length", max_bytes),
            ("grpc.so_reuseport", 0),  # two servers would share the requests
        ],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(model, max_bytes), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(
        ModelService(model), server
    )
    port = server.add_insecure_port(f"{host}:{port}")
    server.start()
    return server, port


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """`Predict` and `GetModelMetadata`; other methods are unimplemented."""

    def __init__(self, model: predictor.Model, max_bytes: int):
        self._model = model
        self._max_bytes = max_bytes

    def Predict(self, request, context):
        """Computes the outputs of a signature, within the client's deadline."""
        with _errors_to(context):
            model, version = _asked_for(self._model, request.model_spec)
            inputs = {
                name: _array(name, proto, self._max_bytes)
                for name, proto in request.inputs.items()
            }
            name = request.model_spec.signature_name
            with model.use(version) as served:
                outputs = served.run(
                    name, inputs, request.output_filter, _remaining(context)
                )
                number = served.number
            return predict_pb2.PredictResponse(
                model_spec=_spec(
                    model, number, name or predictor.DEFAULT_SIGNATURE
                ),
                outputs={
                    name: tf.make_tensor_proto(array)
                    for name, array in outputs.items()
                },
            )

    def GetModelMetadata(self, request, context):
        """Returns the signatures."""
        with _errors_to(context):
            model, version = _asked_for(self._model, request.model_spec)
            if list(request.metadata_field) != ["signature_def"]:
                raise predictor.invalid(
                    "metadata_field must be ['signature_def']. Received: "
                    f"{list(request.metadata_field)}"
                )
            signatures = get_model_metadata_pb2.SignatureDefMap()
            with model.use(version) as served:
                for name, signature in served.signatures.items():
                    signatures.signature_def[name].CopyFrom(signature)
                number = served.number
            response = get_model_metadata_pb2.GetModelMetadataResponse(
                model_spec=_spec(model, number)
            )
            response.metadata["signature_def"].Pack(signatures)
            return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """`GetModelStatus`; the model cannot be changed from outside."""

    def __init__(self, model: predictor.Model):
        self._model = model

    def GetModelStatus(
        self, request, context
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the states of the versions."""
        with _errors_to(context):
            model, version = _asked_for(self._model, request.model_spec)
            return model.status(version)


@contextlib.contextmanager
def _errors_to(context: grpc.ServicerContext) -> Iterator[None]:
    try:
        yield
    except tf.errors.OpError as error:
        context.abort(_STATUS[error.error_code], predictor.explain(error))


def _asked_for(model, spec):
    if not spec.name:
        raise predictor.invalid("ModelSpec has no name specified.")
    if spec.version_label:
        raise predictor.invalid(
            f"Unrecognized servable version label: {spec.version_label}"
        )
    version = spec.version.value if spec.HasField("version") else None
    return predictor.find(model, spec.name), version


def _remaining(context):
    seconds = context.time_remaining()
    # It may have waited for a thread until nobody waits for its answer.
    if not context.is_active() or (seconds is not None and seconds <= 0):
        raise tf.errors.DeadlineExceededError(
            None, None, "the deadline passed before the computation"
        )
    return seconds


def _array(
    name: str, proto: tensor_pb2.TensorProto, max_bytes: int
) -> np.ndarray:
    # A proto may state one value and a shape to fill with it.
    sizes = [dimension.size for dimension in proto.tensor_shape.dim]
    if math.prod(max(size, 1) for size in sizes) > max_bytes:
        raise predictor.invalid(
            f"tensor parsing error: {name} has the shape {sizes}, larger than "
            f"a request of {max_bytes} bytes"
        )
    try:
        return tf.make_ndarray(proto)
    except (ValueError, TypeError, KeyError) as error:
        raise predictor.invalid(
            f"tensor parsing error: {name}: {error}"
        ) from error


def _spec(model, number, signature_name=""):
    spec = model_pb2.ModelSpec(name=model.name, signature_name=signature_name)
    spec.version.value = number
    return spec
