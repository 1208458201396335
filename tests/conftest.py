"""Devices and seeds of all tests."""

import gc
import os
import random

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import export_cases
import keras
import numpy as np
import photograph_cases
import pytest
import tensorflow as tf

from skipnet_tf import export
from skipnet_tf import sessions

# Two devices on one CPU, so that two replicas can be tested everywhere.
# Devices are laid out once, before the first tensor.
tf.config.set_visible_devices([], "GPU")
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration() for _ in range(2)],
)


def pytest_collection_modifyitems(items):
    """The files that take longest first: two processes end together."""
    first = ("test_trainers.py", "test_resuming.py")
    items.sort(key=lambda item: item.path.name not in first)


@pytest.fixture(autouse=True, scope="module")
def collection_between_files():
    """Collects garbage before each file, and only of the one before it.

    Keras keeps the graphs of every `fit`; walking them again and again took
    an eighth of the tests' time.
    """
    gc.disable()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def fresh_state():
    """Gives every test the same seed and the default precision."""
    keras.config.set_dtype_policy("float32")
    # Keras draws the seeds of its initializers from Python's generator.
    # `keras.utils.set_random_seed` would empty TensorFlow's cache of kernels
    # too, which makes every test slower.
    random.seed(0)
    np.random.seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def skipnet():
    """The network in `version`."""
    return export_cases.divided()


@pytest.fixture(scope="session")
def version(skipnet, tmp_path_factory):
    """The folder of a SavedModel with all signatures."""
    return export.export_saved_model(
        skipnet,
        str(tmp_path_factory.mktemp("skipnet")),
        "digits",
        forced=True,
        class_names=export_cases.NAMES,
        warmup_batches=(1, 3),
        card={"accuracy": 0.5},
    )


@pytest.fixture(scope="module")
def session(version):
    """The plain session that a server loads a version into."""
    with sessions.Session(version) as session:
        yield session


@pytest.fixture(scope="module")
def signatures(version):
    """The signatures of `version` as TensorFlow loads them."""
    return tf.saved_model.load(version).signatures


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Ten photographs of which three cannot be decoded."""
    return photograph_cases.write_folder(
        tmp_path_factory.mktemp("folder"), photograph_cases.photograph
    )


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """Ten photographs in three files, nothing wrong with them."""
    return photograph_cases.write_records(
        tmp_path_factory.mktemp("sound"),
        lambda number: photograph_cases.jpeg(10 * number),
    )
