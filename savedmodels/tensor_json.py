"""JSON to arrays and back, in the two formats of TF Serving's REST API.

`{"instances": [...]}` holds one value for each image and is answered by
`{"predictions": [...]}`; `{"inputs": ...}` holds whole arrays and is answered
by `{"outputs": ...}`.  Where a signature has one input or output, its name may
be left out of a request and is left out of the answer.  Bytes are
`{"b64": "..."}`.  As in TF Serving, numbers may be `NaN` and `Infinity`.
"""

import base64
import json
from collections.abc import Mapping

import numpy as np
import predictor
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

# Kinds of NumPy arrays, made of JSON numbers, that each kind of input takes.
_TAKES = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}


def parse(body: bytes) -> dict:
    """Returns the request in the body of a POST.

    Raises:
        tf.errors.InvalidArgumentError: If it is not a JSON object with
            either `instances` or `inputs`.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise predictor.invalid(f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise predictor.invalid("the request must be a JSON object")
    if ("instances" in request) == ("inputs" in request):
        raise predictor.invalid(
            "the request must have either 'instances' or 'inputs'"
        )
    if not isinstance(request.get("signature_name", ""), str):
        raise predictor.invalid("'signature_name' must be a string")
    return request


def arrays(
    request: dict, signature: meta_graph_pb2.SignatureDef
) -> dict[str, np.ndarray]:
    """Returns the inputs of a parsed request.

    Args:
        request: Dictionary, see `parse`.
        signature: The signature that it asks for; inputs that the signature
            does not have are left to the predictor to refuse.

    Raises:
        tf.errors.InvalidArgumentError: If a value does not fit its input.
    """
    if "inputs" in request:
        values = _named(request["inputs"], signature)
    else:
        values = _columns(request["instances"], signature)
    for name in values:
        if name not in signature.inputs:
            raise predictor.invalid(
                f"input tensor alias not found in signature: {name}. Inputs "
                f"expected to be in the set {sorted(signature.inputs)}."
            )
    return {
        name: _array(name, value, tf.as_dtype(signature.inputs[name].dtype))
        for name, value in values.items()
    }


def answer(request: dict, outputs: Mapping[str, np.ndarray]) -> dict:
    """Returns the answer to a parsed request, ready for `json.dumps`."""
    values = {name: _plain(name, array) for name, array in outputs.items()}
    if "inputs" in request:
        return {"outputs": _unnamed(values)}
    rows = zip(*values.values(), strict=True)
    return {
        "predictions": [
            _unnamed(dict(zip(values, row, strict=True))) for row in rows
        ]
    }


def _named(value, signature):
    if isinstance(value, dict) and not _is_base64(value):
        return value
    if len(signature.inputs) != 1:
        raise predictor.invalid(
            f"inputs must be named, they are {sorted(signature.inputs)}"
        )
    return {name: value for name in signature.inputs}


def _columns(instances, signature):
    if not isinstance(instances, list) or not instances:
        raise predictor.invalid("'instances' must be a list that is not empty")
    rows = [_named(instance, signature) for instance in instances]
    if any(row.keys() != rows[0].keys() for row in rows):
        raise predictor.invalid("all instances must have the same inputs")
    return {name: [row[name] for row in rows] for name in rows[0]}


def _array(name, value, dtype):
    try:
        if dtype == tf.string:
            array = np.array(_bytes(value), object)
            fits = all(isinstance(item, bytes) for item in array.flat)
        else:
            array = np.array(value)
            # An empty list says nothing of its type.
            fits = not array.size or _is_within(array, dtype.as_numpy_dtype)
    except (ValueError, OverflowError, RecursionError) as error:
        raise predictor.invalid(f"input {name}: {error}") from error
    if not fits:
        raise predictor.invalid(
            f"input {name} expects values of type {dtype.name}"
        )
    with np.errstate(over="ignore"):  # becomes infinite
        return array.astype(dtype.as_numpy_dtype)


def _is_within(array, dtype):
    if array.dtype.kind not in _TAKES.get(np.dtype(dtype).kind, ""):
        return False
    if np.dtype(dtype).kind not in "iu":
        return True
    limits = np.iinfo(dtype)
    return limits.min <= array.min() and array.max() <= limits.max


def _bytes(value):
    if isinstance(value, list):
        return [_bytes(item) for item in value]
    if isinstance(value, str):
        return value.encode()
    if _is_base64(value):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (ValueError, TypeError) as error:
            raise ValueError(f"not base64: {error}") from error
    raise ValueError("expects strings or objects with 'b64'")


def _is_base64(value):
    return isinstance(value, dict) and value.keys() == {"b64"}


def _plain(name, array):
    if array.dtype.kind != "O":
        return array.tolist()
    # TF Serving tells text from bytes by the name.
    convert = _base64 if name.endswith("_bytes") else _text
    return np.vectorize(convert, otypes=[object])(array).tolist()


def _base64(value):
    return {"b64": base64.b64encode(value).decode()}


def _text(value):
    return value.decode(errors="replace")


def _unnamed(values):
    return values if len(values) != 1 else next(iter(values.values()))
