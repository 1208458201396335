"""Objects of Keras in `compile`: metrics, losses, optimizers, as in Keras."""

import keras
import numpy as np
import pytest
from training_cases import IMAGES
from training_cases import LABELS
from training_cases import network
from training_cases import sgd

import skipnet_tf

_IMAGES, _CLASSES = IMAGES[:8], LABELS[:8]
_ONE_HOT = np.eye(3, dtype="float32")[_CLASSES]
_WEIGHTS = np.linspace(0.5, 1.5, 8, dtype="float32")


@keras.saving.register_keras_serializable(package="skipnet_tf_tests")
class Labels(keras.metrics.Metric):
    """Sum of the labels: a metric of a user's own, with a variable."""

    def __init__(self, name="labels", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(keras.ops.sum(keras.ops.cast(y_true, "float32")))

    def result(self):
        return keras.ops.convert_to_tensor(self.total)


def _top(count=2):
    return keras.metrics.SparseTopKCategoricalAccuracy(count)


def _cross_entropy():
    return keras.metrics.SparseCategoricalCrossentropy(from_logits=True)


# Made anew for each test: variables of a metric belong to one network.
_METRICS = {
    "names": lambda: {"metrics": ["accuracy"]},
    "several": lambda: {
        "metrics": (
            "accuracy",
            keras.metrics.sparse_categorical_accuracy,
            _top(),
            _cross_entropy(),
            keras.metrics.MeanIoU(3, sparse_y_pred=False),
        )
    },
    "nested": lambda: {"metrics": [["accuracy", _top()]]},
    "dict": lambda: {"metrics": {"output_0": [_top()]}},
    "weighted": lambda: {"weighted_metrics": [_cross_entropy(), Labels()]},
    "both": lambda: {"metrics": [Labels()], "weighted_metrics": [_top()]},
    "one-hot": lambda: {
        "metrics": [
            keras.metrics.F1Score("macro"),
            keras.metrics.AUC(
                num_thresholds=5,
                from_logits=True,
                multi_label=True,
                num_labels=3,
            ),
        ]
    },
}


def _gated():
    return network("pool", blocks=(1, 1))


def _dense():
    return skipnet_tf.ResNet((1, 1), (4, 4), num_classes=3)


def _sequential():
    """What Keras does with the same arguments, for comparison."""
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    return keras.Sequential([keras.layers.Input((4, 4, 3)), *layers])


def _results(model, labels):
    return model.evaluate(
        _IMAGES, labels, 8, verbose=0, sample_weight=_WEIGHTS, return_dict=True
    )


def _train(model, labels):
    model.fit(
        _IMAGES, labels, 8, verbose=0, shuffle=False, sample_weight=_WEIGHTS
    )


@pytest.mark.filterwarnings("ignore:.*retracing")
@pytest.mark.parametrize("make", [_dense, _gated])
@pytest.mark.parametrize("kind", _METRICS)
def test_every_metric_is_compiled_saved_loaded_and_trained_on(
    kind, make, tmp_path
):
    metrics, labels = _METRICS[kind](), _CLASSES
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if kind == "one-hot":
        labels = _ONE_HOT
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model = make()
    for _ in range(2):  # the same objects twice
        model.compile(sgd(), loss, run_eagerly=True, **metrics)
    _train(model, labels)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    results = _results(model, labels)
    assert _results(loaded, labels) == results
    # Those of Keras, and no other.
    plain = _sequential()
    plain.compile("sgd", loss, run_eagerly=True, **metrics)
    routes = {"executed_blocks", "multiply_adds"}
    routes |= {"distinct_paths", "input_dependent_gates"}
    assert set(_results(plain, labels)) == set(results) - routes
    for each in (model, loaded):
        _train(each, labels)
    assert _results(loaded, labels) == _results(model, labels) != results


@pytest.mark.parametrize("make", [_dense, _gated])
def test_a_metric_forgets_what_it_saw_in_another_network(make):
    metric = _top(1)
    metric.update_state(np.zeros(99), np.ones((99, 3), "float32"))
    for _ in range(2):
        model = make()
        model.compile(sgd(), metrics=[metric], run_eagerly=True)
        right = np.argmax(model(_IMAGES), axis=1) == _CLASSES
        results = _results(model, _CLASSES)
        assert results[metric.name] == pytest.approx(np.mean(right))


_LOSSES = {
    "object": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "of a list": [keras.losses.SparseCategoricalCrossentropy(from_logits=True)],
    "own": skipnet_tf.losses.SmoothedCrossEntropy(0.1),
    "summed": keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="sum"
    ),
}
_OPTIMIZERS = {
    "name": lambda: "adam",
    "object": lambda: keras.optimizers.RMSprop(0.01),
    "schedule": lambda: sgd(keras.optimizers.schedules.CosineDecay(0.1, 9)),
    "scaling": lambda: keras.optimizers.LossScaleOptimizer(sgd()),
}


@pytest.mark.parametrize("make", [_dense, _gated])
@pytest.mark.parametrize(
    ("loss", "optimizer"),
    [(loss, "object") for loss in _LOSSES]
    + [("object", optimizer) for optimizer in _OPTIMIZERS],
)
def test_losses_and_optimizers_are_saved_loaded_and_trained_on(
    loss, optimizer, make, tmp_path
):
    model = make()
    stage = {}
    if make is _gated:  # whose rewards ask the loss of every image
        stage["stage"] = skipnet_tf.HybridReinforce(seed=3)
    model.compile(
        _OPTIMIZERS[optimizer](), _LOSSES[loss], run_eagerly=True, **stage
    )
    _train(model, _CLASSES)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    before = loaded.get_weights()
    for each in (model, loaded):
        _train(each, _CLASSES)
    for ours, theirs in zip(
        model.optimizer.variables, loaded.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    pairs = zip(before, model.get_weights(), loaded.get_weights(), strict=True)
    for old, ours, theirs in pairs:
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(before[0], loaded.get_weights()[0])


@pytest.mark.parametrize(
    "several",
    [[_LOSSES["object"]] * 2, {"logits": _LOSSES["object"]}, []],
)
def test_a_network_has_one_loss(several):
    with pytest.raises(ValueError, match="`loss` must be one loss"):
        _dense().compile(sgd(), several)
