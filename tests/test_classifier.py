"""`compile`: losses, labels, and what is saved between stages."""

import keras
import numpy as np
import pytest
from training_cases import HYBRID
from training_cases import IMAGES
from training_cases import LABELS
from training_cases import fit
from training_cases import network
from training_cases import same
from training_cases import sgd

import skipnet_tf


def test_training_goes_on_from_a_file_saved_in_the_middle(tmp_path):
    model = network()
    model.compile(
        sgd(momentum=0.9),
        metrics=["accuracy"],
        stage=skipnet_tf.HybridReinforce(**HYBRID, seed=7),
    )
    fit(model, 2)
    model.stage.alpha.assign(0.25)
    model.save(tmp_path / "middle.keras")
    loaded = keras.saving.load_model(tmp_path / "middle.keras")
    assert type(loaded.stage) is skipnet_tf.HybridReinforce
    assert float(loaded.stage.alpha) == 0.25
    assert loaded.stage.seed == 7
    assert int(loaded.optimizer.iterations) == 2
    assert same(model, loaded)
    middle = loaded.get_weights()
    for each in (model, loaded):
        fit(each, 2)
    assert same(model, loaded, atol=1e-6)
    assert not np.allclose(middle[0], loaded.get_weights()[0], atol=1e-5)


def test_weights_move_from_stage_to_stage(tmp_path):
    first = network()
    first.compile(sgd(), stage=skipnet_tf.Supervised())
    fit(first)
    first.save_weights(tmp_path / "supervised.weights.h5")
    second = network()
    second.compile(sgd(), stage=skipnet_tf.HybridReinforce(**HYBRID))
    assert not same(first, second)
    second.load_weights(tmp_path / "supervised.weights.h5")
    assert same(first, second)
    # In one network, the stage changes by compiling again.
    second.compile(sgd(), stage=skipnet_tf.Supervised())
    assert same(first, second)


def test_a_dense_networks_weights_move_into_the_backbone(tmp_path):
    dense = skipnet_tf.ResNet((1, 2), (4, 4), num_classes=3)
    dense.compile(sgd(), metrics=["accuracy"])
    history = fit(dense).history
    assert set(history) == {"loss", "accuracy"}
    dense.save_weights(tmp_path / "dense.weights.h5")
    gated = network()
    gated.backbone.load_weights(tmp_path / "dense.weights.h5")
    assert same(dense, gated.backbone)
    opened = gated.route(IMAGES, actions=np.ones((16, 2)))["logits"]
    np.testing.assert_allclose(opened, dense(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        "sparse_categorical_crossentropy",
        "categorical_crossentropy",
        keras.losses.SparseCategoricalCrossentropy(),
        keras.losses.CategoricalCrossentropy(from_logits=False),
        keras.losses.sparse_categorical_crossentropy,
    ],
)
def test_losses_on_probabilities_are_refused(loss):
    for model in (network(), skipnet_tf.ResNet((1, 1), (4, 4))):
        with pytest.raises(ValueError, match="`loss`.*from_logits=True"):
            model.compile("sgd", loss=loss)


def test_a_stage_that_is_none_is_refused():
    with pytest.raises(ValueError, match="`stage`.*Received: stage='hrl'"):
        network().compile("sgd", stage="hrl")


def test_a_network_without_gates_has_no_stages():
    dense = skipnet_tf.ResNet((1, 1), (4, 4))
    with pytest.raises(ValueError, match="`stage` must be None"):
        dense.compile("sgd", stage=skipnet_tf.Supervised())


@pytest.mark.parametrize("bad", [3, -1])
def test_labels_out_of_range_name_the_number_of_classes(bad):
    model = network()
    model.compile(sgd(), stage=skipnet_tf.Supervised(), run_eagerly=True)
    wrong = LABELS.copy()
    wrong[5] = bad
    for run in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="3 classes"):
            run(IMAGES, wrong, verbose=0)


def test_one_hot_labels_train_like_class_numbers():
    results = []
    start = network().get_weights()
    for loss, targets in (
        (None, LABELS),
        (
            keras.losses.CategoricalCrossentropy(from_logits=True),
            np.eye(3, dtype="float32")[LABELS],
        ),
    ):
        model = network()
        model.set_weights(start)
        model.compile(
            sgd(),
            loss=loss,
            metrics=["accuracy"],
            stage=skipnet_tf.HybridReinforce(**HYBRID),
            run_eagerly=True,
        )
        model.fit(IMAGES, targets, 16, verbose=0, shuffle=False)
        results.append(model)
    assert same(*results, atol=1e-6)
