"""TF Serving's predict API from the client's side: REST, gRPC, retries.

REST takes nothing but the standard library, gRPC the messages of TF Serving.
"""

import base64
import http.client
import json
import random
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import Protocol

_FIRST_PAUSE = 0.1  # seconds before the second attempt, twice that later
_LONGEST_PAUSE = 5.0  # seconds
_MAX_BYTES = 1 << 28  # of a gRPC answer


class Failure(Exception):
    """There is no answer, and asking again will not give one."""


class Rejected(Failure):
    """Something is wrong with this request; others may be answered."""


class Unavailable(Failure):
    """The server is not there, or too busy, at the moment."""


class Connection(Protocol):
    """What `connect` returns."""

    def predict(
        self, signature: str, inputs: Mapping[str, Any], seconds: float
    ) -> dict[str, list]:
        """Returns the outputs of one request as lists, one item an image.

        Args:
            signature: String, the signature's name.
            inputs: Dictionary of lists of `bytes`, lists of numbers, or
                arrays.
            seconds: Float, how long to wait.

        Raises:
            Failure: If there is no answer.
        """


def connect(url: str, model: str, version: int | None = None) -> Connection:
    """Returns a connection to a model.

    Args:
        url: String, `http://host:port`, `https://...` or `grpc://host:port`.
        model: String, the model's name.
        version: Int. Defaults to the newest.

    Raises:
        ValueError: If `url` is not of that form.
        ImportError: If gRPC's packages are not installed.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme in ("http", "https") and parts.netloc:
        return _Rest(url.rstrip("/"), model, version)
    if parts.scheme == "grpc" and parts.netloc:
        return _Grpc(parts.netloc, model, version)
    raise ValueError(
        "`url` must be http://host:port or grpc://host:port. "
        f"Received: url={url}"
    )


def with_retries(attempt: Callable[[float], Any], deadline: float) -> Any:
    """Calls until it works, fails for good, or time is up.

    Pauses double, less a random part, so that clients that were turned away
    together do not come back together.

    Args:
        attempt: Callable that takes the seconds left and may raise.
        deadline: Float, seconds for all attempts and pauses.

    Raises:
        Failure: That of the last attempt.
    """
    end = time.monotonic() + deadline
    pause, attempts = _FIRST_PAUSE, 0
    while True:
        attempts += 1
        try:
            return attempt(end - time.monotonic())
        except Unavailable as error:
            shortened = pause * random.uniform(0.5, 1.0)
            if time.monotonic() + shortened >= end:
                raise Failure(
                    f"{error} (attempts within {deadline:g} s: {attempts})"
                ) from error
        time.sleep(shortened)
        pause = min(2 * pause, _LONGEST_PAUSE)


class _Rest:
    def __init__(self, url, model, version):
        self._url = f"{url}/v1/models/{urllib.parse.quote(model)}"
        if version is not None:
            self._url += f"/versions/{version}"
        self._url += ":predict"

    def predict(self, signature, inputs, seconds):
        body = {"signature_name": signature, "inputs": inputs}
        request = urllib.request.Request(
            self._url,
            json.dumps(body, default=_to_json).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=seconds) as response:
                return json.load(response)["outputs"]
        except urllib.error.HTTPError as error:
            with error:
                raise _http_failure(error.code, error.read()) from error
        except (OSError, http.client.HTTPException) as error:
            raise _network_failure(error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise Failure(f"not the answer of a predict API: {error}") from None


def _to_json(value):
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return value.tolist()


def _http_failure(code, body):
    try:
        message = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        message = body[:200].decode(errors="replace")
    kinds = {400: Rejected, 413: Rejected, 429: Unavailable, 503: Unavailable}
    return kinds.get(code, Failure)(f"HTTP {code}: {message}")


def _network_failure(error):
    # urllib wraps what goes wrong before the answer, not what does after.
    reason = getattr(error, "reason", error)
    if isinstance(reason, ConnectionError):
        return Unavailable(str(reason) or repr(reason))
    if isinstance(reason, socket.timeout):
        return Failure("no answer within the deadline")
    return Failure(str(reason) or repr(reason))


class _Grpc:
    def __init__(self, address, model, version):
        try:
            import grpc
            import tensorflow as tf
            from tensorflow_serving.apis import predict_pb2
            from tensorflow_serving.apis import prediction_service_pb2_grpc
        except ImportError as error:
            raise ImportError(
                f"gRPC needs pip install 'skipnet_tf[serving]' ({error}); "
                "http:// needs nothing"
            ) from error
        self._grpc, self._tf = grpc, tf
        self._request = predict_pb2.PredictRequest()
        self._request.model_spec.name = model
        if version is not None:
            self._request.model_spec.version.value = version
        channel = grpc.insecure_channel(
            address,
            [
                ("grpc.max_receive_message_length", _MAX_BYTES),
                # Retries are ours: those of gRPC know no deadline for all.
                ("grpc.enable_retries", 0),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ],
        )
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def predict(self, signature, inputs, seconds):
        request = type(self._request)()
        request.CopyFrom(self._request)
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(self._tf.make_tensor_proto(value))
        try:
            response = self._stub.Predict(request, timeout=seconds)
        except self._grpc.RpcError as error:
            raise self._failure(error) from error
        return {
            name: _text(self._tf.make_ndarray(proto).tolist())
            for name, proto in response.outputs.items()
        }

    def _failure(self, error):
        codes = self._grpc.StatusCode
        # An exhausted resource is mostly the size of the message.
        kinds = {
            codes.INVALID_ARGUMENT: Rejected,
            codes.RESOURCE_EXHAUSTED: Rejected,
            codes.UNAVAILABLE: Unavailable,
        }
        kind = kinds.get(error.code(), Failure)
        return kind(f"{error.code().name}: {error.details()}")


def _text(value):
    if isinstance(value, list):
        return [_text(item) for item in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value
