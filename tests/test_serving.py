"""What the local server answers, right and wrong, over both of its APIs."""

import concurrent.futures
import itertools
import json
import os
import pathlib
import re
import types
import urllib.error
import urllib.request

import connection
import grpc
import grpc_service
import numpy as np
import predictor
import pytest
import serving_cases
import tensor_json
import tensorflow as tf
from cases import pixels
from google.protobuf import text_format
from serving_cases import BROKEN
from serving_cases import MAX_BYTES
from serving_cases import SCHEMES
from serving_cases import SIGNATURES
from serving_cases import broken
from serving_cases import png
from serving_cases import same
from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.apis import model_service_pb2_grpc
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

IMAGE = [[[[1, 2, 3]]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return serving_cases.export_tiny(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def direct(folder):
    return serving_cases.direct(folder)


@pytest.fixture(scope="module")
def server(folder):
    with serving_cases.serve(folder) as server:
        yield server


@pytest.fixture(scope="module")
def stubs(server):
    """The two gRPC services, as another program would call them."""
    address = server.urls["grpc"].removeprefix("grpc://")
    with grpc.insecure_channel(address) as channel:
        yield types.SimpleNamespace(
            prediction=prediction_service_pb2_grpc.PredictionServiceStub(
                channel
            ),
            models=model_service_pb2_grpc.ModelServiceStub(channel),
        )


def ask(server, path, body=None):
    """Returns the code and the answer of a REST request."""
    url = f"{server.urls['http']}/v1/models/{path}"
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    try:
        with urllib.request.urlopen(url, body, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("signature", SIGNATURES)
def test_the_server_answers_as_the_direct_call(
    server, direct, signature, scheme
):
    inputs = serving_cases.inputs(signature)
    got = server.services[scheme].predict(signature, inputs, 30.0)
    same(got, direct(signature, inputs))


def test_instances_are_answered_by_predictions(server, direct):
    images = pixels(3)
    expected = direct("serving_default", {"images": images})
    bare, named = images.tolist(), [{"images": i} for i in images.tolist()]
    for instances in (bare, named):
        code, got = ask(server, "skipnet:predict", {"instances": instances})
        assert code == 200
        rows = got["predictions"]
        same({k: [row[k] for row in rows] for k in expected}, expected)


def test_outputs_become_json():
    outputs = {"x": np.float32([np.nan, np.inf])}
    # One output has no name; NaN is written as TF Serving writes it.
    got = json.dumps(tensor_json.answer({"inputs": 0}, outputs))
    assert got == '{"outputs": [NaN, Infinity]}'
    outputs["y_bytes"] = outputs["z"] = np.array([b"a", b"b"], object)
    rows = tensor_json.answer({"instances": 0}, outputs)["predictions"]
    assert rows[1] == {"x": np.inf, "y_bytes": {"b64": "Yg=="}, "z": "b"}


def test_versions_are_named_in_the_path(server):
    body = {"inputs": pixels(1).tolist()}
    assert ask(server, "skipnet/versions/1:predict", body)[0] == 200
    code, got = ask(server, "skipnet/versions/7:predict", body)
    message = "Servable not found for request: Specific(skipnet, 7)"
    assert (code, got) == (404, {"error": message})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "JSON Parse error"),
        (b"[" * 100_000, "JSON Parse error"),
        (b"\xff", "JSON Parse error"),
        ([], "JSON object"),
        ({}, "either 'instances' or 'inputs'"),
        ({"inputs": IMAGE, "instances": IMAGE}, "either"),
        ({"instances": []}, "not empty"),
        ({"instances": 3}, "list"),
        ({"inputs": [[[1, 2, 3]]]}, r"shape \(None, None, None, 3\)"),
        ({"inputs": [[[[1, 2]]]]}, "shape"),
        ({"inputs": [[[[1, 2, 3], [4]]]]}, "inhomogeneous"),
        ({"inputs": [[[[1, 2, 0.5]]]]}, "type uint8"),
        ({"inputs": [[[[1, 2, 256]]]]}, "type uint8"),
        ({"inputs": [[[[1, 2, -1]]]]}, "type uint8"),
        ({"inputs": [[[[1, 2, 10**30]]]]}, "type uint8"),
        ({"inputs": [[[["1", "2", "3"]]]]}, "type uint8"),
        ({"inputs": [[[[None, 2, 3]]]]}, "type uint8"),
        ({"inputs": {"picture": IMAGE}}, "alias not found.*picture"),
        ({"inputs": {}}, "Missing but required: {images}"),
        ({"signature_name": "no", "inputs": IMAGE}, '"no" not found'),
        ({"signature_name": 3, "inputs": IMAGE}, "must be a string"),
        ({"signature_name": "forced", "inputs": IMAGE}, "must be named"),
        ({"signature_name": "image_bytes", "inputs": [3]}, "b64"),
        ({"signature_name": "image_bytes", "inputs": [{"b64": "*"}]}, "base64"),
        ({"signature_name": "image_bytes", "inputs": [{"b64": 3}]}, "base64"),
    ],
)
def test_malformed_json_is_refused(server, body, message):
    code, got = ask(server, "skipnet:predict", body)
    assert code == 400
    assert re.search(message, got["error"]), got


def test_unknown_models_and_paths_are_errors(server):
    body = {"inputs": IMAGE}
    code, got = ask(server, "other:predict", body)
    message = "Servable not found for request: Latest(other)"
    assert (code, got) == (404, {"error": message})
    assert ask(server, "other")[0] == 404
    assert ask(server, "skipnet/versions/7")[0] == 404
    for path, sent in [("skipnet:classify", body), ("skipnet:predict", None)]:
        code, got = ask(server, path, sent)
        assert code == 400 and "Malformed request" in got["error"]


def test_a_request_that_is_too_large_is_refused(server):
    code, got = ask(server, "skipnet:predict", bytes(MAX_BYTES + 1))
    assert code == 413 and "at most" in got["error"]
    large = {"images": np.zeros([1, 600, 600, 3], "uint8")}
    with pytest.raises(connection.Rejected, match="RESOURCE_EXHAUSTED"):
        server.services["grpc"].predict("serving_default", large, 30.0)


def request(signature="serving_default", name="skipnet", **inputs):
    message = predict_pb2.PredictRequest()
    message.model_spec.name = name
    message.model_spec.signature_name = signature
    for key, value in inputs.items():
        message.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return message


def vast():
    """A request of few bytes whose one value fills a large shape."""
    message = request(images=pixels(1))
    message.inputs["images"].Clear()
    text_format.Parse(
        "dtype: DT_UINT8 int_val: 1 tensor_shape { dim { size: 99999 } "
        "dim { size: 99999 } dim { size: 99999 } dim { size: 3 } }",
        message.inputs["images"],
    )
    return message


def versioned(number):
    message = request(images=pixels(1))
    message.model_spec.version.value = number
    return message


@pytest.mark.parametrize(
    ("message", "code", "details"),
    [
        (request(images=pixels(1) / 2), "INVALID_ARGUMENT", "expects uint8"),
        (request(images=pixels(1)[0]), "INVALID_ARGUMENT", "shape"),
        (request(), "INVALID_ARGUMENT", "required: {images}"),
        (request(pixels=pixels(1)), "INVALID_ARGUMENT", "extra: {pixels}"),
        (vast(), "INVALID_ARGUMENT", "larger than"),
        (request("no"), "FAILED_PRECONDITION", '"no" not found'),
        (request(name=""), "INVALID_ARGUMENT", "no name"),
        (request(name="other"), "NOT_FOUND", r"Latest\(other\)"),
        (versioned(7), "NOT_FOUND", r"Specific\(skipnet, 7\)"),
    ],
)
def test_wrong_messages_are_refused(stubs, message, code, details):
    with pytest.raises(grpc.RpcError, match=details) as error:
        stubs.prediction.Predict(message, timeout=30)
    assert error.value.code().name == code


def test_the_output_filter_selects(stubs):
    message = request(images=pixels(2))
    message.output_filter[:] = ["macs", "gates"]
    got = stubs.prediction.Predict(message, timeout=30)
    assert set(got.outputs) == {"macs", "gates"}
    assert got.model_spec.version.value == 1
    message.output_filter[:] = ["mac"]
    with pytest.raises(grpc.RpcError, match="output tensor alias not found"):
        stubs.prediction.Predict(message, timeout=30)


def test_a_request_whose_deadline_has_passed_is_not_computed(
    server, monkeypatch
):
    monkeypatch.setattr(predictor.Version, "run", None)

    class Late:
        def is_active(self):
            return True

        def time_remaining(self):
            return -0.1

        def abort(self, code, details):
            raise RuntimeError(code, details)

    service = grpc_service.PredictionService(server.model, MAX_BYTES)
    with pytest.raises(RuntimeError, match="before the computation"):
        service.Predict(request(images=pixels(1)), Late())


def test_a_computation_ends_with_the_deadline(server):
    many = np.zeros([300_000, 1, 1, 3], "uint8")
    with server.model.use() as version:
        with pytest.raises(tf.errors.DeadlineExceededError):
            version.run("", {"images": many}, timeout=0.01)
        assert version.run("", {"images": pixels(1)}, ["macs"])["macs"] > 0


def test_status_and_metadata(server, stubs):
    ok = {"error_code": "OK", "error_message": ""}
    state = {"version": "1", "state": "AVAILABLE", "status": ok}
    expected = {"model_version_status": [state]}
    assert ask(server, "skipnet") == (200, expected)
    assert ask(server, "skipnet/versions/1") == (200, expected)
    message = get_model_status_pb2.GetModelStatusRequest()
    message.model_spec.name = "skipnet"
    got = stubs.models.GetModelStatus(message, timeout=30)
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert [s.state for s in got.model_version_status] == [available]

    code, got = ask(server, "skipnet/metadata")
    spec = {"name": "skipnet", "signature_name": "", "version": "1"}
    assert code == 200 and got["model_spec"] == spec
    signatures = got["metadata"]["signature_def"]["signature_def"]
    assert set(SIGNATURES) <= set(signatures)
    images = signatures["serving_default"]["inputs"]["images"]
    assert images["dtype"] == "DT_UINT8"
    message = get_model_metadata_pb2.GetModelMetadataRequest()
    message.model_spec.name = "skipnet"
    message.metadata_field.append("signature_def")
    got = stubs.prediction.GetModelMetadata(message, timeout=30)
    packed = get_model_metadata_pb2.SignatureDefMap()
    assert got.metadata["signature_def"].Unpack(packed)
    assert set(packed.signature_def) == set(signatures)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_image_is_an_error_of_its_request(server, kind, scheme):
    good = png(pixels(1)[0])
    service = server.services[scheme]
    for images in ([broken(kind)], [good, broken(kind), good]):
        with pytest.raises(connection.Rejected, match="."):
            service.predict("image_bytes", {"bytes": images}, 60.0)
    answer = service.predict("image_bytes", {"bytes": [good]}, 30.0)
    assert len(answer["macs"]) == 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_images_are_an_error(server, scheme):
    for signature in SIGNATURES:
        inputs = serving_cases.inputs(signature)
        nothing = {name: value[:0] for name, value in inputs.items()}
        with pytest.raises(connection.Rejected, match="."):
            server.services[scheme].predict(signature, nothing, 30.0)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("threshold", [-0.1, 1.1, np.nan, np.inf])
def test_thresholds_outside_0_and_1_are_an_error(server, scheme, threshold):
    inputs = {
        "images": pixels(2),
        "threshold": np.array([0.5, threshold], "float32"),
    }
    with pytest.raises(connection.Rejected, match="threshold"):
        server.services[scheme].predict("tunable", inputs, 30.0)


def bad_requests():
    """Requests that must be refused, over and over."""
    good = png(pixels(1)[0])
    bad = [("image_bytes", {"bytes": [good, broken(kind)]}) for kind in BROKEN]
    bad += [
        ("image_bytes", {"bytes": []}),
        ("serving_default", {"images": pixels(1)[0]}),
        ("serving_default", {"images": pixels(1) / 2}),
        ("serving_default", {"images": pixels(1)[:0]}),
        ("serving_default", {"image": pixels(1)}),
        ("tunable", {"images": pixels(1), "threshold": np.float32([2])}),
        ("no_such_signature", {"images": pixels(1)}),
    ]
    return itertools.cycle(bad)


def resident():
    """Bytes of memory that this process occupies."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_two_thousand_mixed_requests_from_eight_threads(server, direct):
    bad, random = bad_requests(), np.random.default_rng(0)
    asked = [(name, serving_cases.inputs(name)) for name in SIGNATURES]
    asked += [("image_bytes", {"bytes": [png(i)]}) for i in pixels(20)]
    asked += [
        ("serving_default", {"images": pixels(1, seed=i)}) for i in range(19)
    ]
    good = [(*inputs, direct(*inputs)) for inputs in asked]
    good = itertools.cycle(good)

    def plan(count):
        for number in range(count):
            wrong = number % 10 == 9
            request = (*next(bad), None) if wrong else next(good)
            yield SCHEMES[random.integers(2)], *request

    def send(scheme, signature, inputs, expected):
        service = server.services[scheme]
        if expected is not None:
            same(service.predict(signature, inputs, 60.0), expected)
            return True
        with pytest.raises(connection.Failure, match="40.|INV|FAILED"):
            service.predict(signature, inputs, 60.0)
        return False

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda item: send(*item), plan(500)))
        before = resident()
        answered = list(threads.map(lambda item: send(*item), plan(2000)))
        grown = resident() - before
    assert answered.count(True) == 1800 and answered.count(False) == 200
    # 10 kilobytes a request would be 20 megabytes.
    assert grown < 20e6, f"{grown / 1e6:.1f} MB"
