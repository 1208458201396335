"""Warm-up records and batching parameters, as TF Serving reads them."""

import os
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from skipnet_tf import serving

CONFIG = pathlib.Path(__file__).parents[1] / "savedmodels" / "serving"
REQUESTS = [
    ("serving_default", {"images": np.zeros((2, 4, 4, 3), np.uint8)}),
    ("image_bytes", {"bytes": np.array([b"\x89PNG", b"\xff\xd8"], object)}),
    (
        "tunable",
        {
            "threshold": np.array([0.25], np.float32),
            "images": np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3),
        },
    ),
    ("forced", {"b": np.ones((1, 2), np.int64), "a": np.zeros(3, bool)}),
]


def records(folder):
    """Serialised records, read by TensorFlow alone."""
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    return list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())


def test_records_are_prediction_logs_of_tf_serving(tmp_path):
    serving.write(str(tmp_path), REQUESTS)
    found = records(tmp_path)
    assert len(found) == len(REQUESTS)
    for record, (signature, inputs) in zip(found, REQUESTS):
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.signature_name == signature
        assert request.inputs.keys() == inputs.keys()
        for name, expected in inputs.items():
            got = tf.make_ndarray(request.inputs[name])
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected)


def test_records_are_what_tf_serving_would_have_written(tmp_path):
    serving.write(str(tmp_path), REQUESTS)
    for record in records(tmp_path):
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert log.SerializeToString(deterministic=True) == record


def test_requests_are_read_as_they_were_written(tmp_path):
    serving.write(str(tmp_path), REQUESTS)
    found = list(serving.read_requests(str(tmp_path)))
    assert [name for name, _ in found] == [name for name, _ in REQUESTS]
    for (_, got), (_, expected) in zip(found, REQUESTS):
        np.testing.assert_equal(got, expected)


def test_a_version_without_records_has_no_requests(tmp_path):
    assert list(serving.read_requests(str(tmp_path))) == []


def test_records_of_other_kinds_are_an_error(tmp_path):
    serving.write(str(tmp_path), [])
    log = prediction_log_pb2.PredictionLog()
    log.classify_log.request.model_spec.name = "other"
    path = tmp_path / "assets.extra" / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(path)) as file:
        file.write(log.SerializeToString())
    with pytest.raises(ValueError, match="something else than requests"):
        list(serving.read_requests(str(tmp_path)))


def test_more_than_a_thousand_requests_are_refused(tmp_path):
    request = ("serving_default", {"images": np.zeros(1, np.uint8)})
    with pytest.raises(ValueError, match="at most 1000.*Received: 1001"):
        serving.write(str(tmp_path), [request] * 1001)
    assert os.listdir(tmp_path) == []
    serving.write(str(tmp_path), [request] * 1000)
    assert len(records(tmp_path)) == 1000


def parameters(text):
    """Batching parameters of a text message: numbers, and allowed sizes."""
    text = re.sub("#.*", "", text)
    numbers = re.findall(r"(\w+) { value: (\d+) }\n", text)
    sizes = re.findall(r"allowed_batch_sizes: (\d+)\n", text)
    # Nothing else is in it.
    rest = re.sub(r"\w+ { value: \d+ }|allowed_batch_sizes: \d+", "", text)
    assert rest.strip() == ""
    return dict(numbers), [int(size) for size in sizes]


def test_batching_parameters_are_those_that_are_explained(tmp_path):
    serving.write(str(tmp_path), [])
    written = (tmp_path / "batching_params.pbtxt").read_text()
    numbers, sizes = parameters(written)
    assert parameters((CONFIG / "batching.config").read_text()) == (
        numbers,
        sizes,
    )
    assert set(numbers) == {
        "max_batch_size",
        "batch_timeout_micros",
        "num_batch_threads",
        "max_enqueued_batches",
    }
    # TF Serving asks for rising sizes up to the largest batch.
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == int(numbers["max_batch_size"])
