"""Batch normalisation's statistics, estimated anew."""

import cases
import numpy as np
import pytest
import tensorflow as tf

import skipnet_tf
from skipnet_tf import layers
from skipnet_tf import recalibration
from skipnet_tf.policy import Forced

IMAGES = cases.images(6, 8, 8, 3)
BATCHES = IMAGES[:3], IMAGES[3:]


def dataset(images=IMAGES):
    return tf.data.Dataset.from_tensor_slices(
        (images, cases.labels(len(images)))
    ).batch(3)


class Bright(skipnet_tf.Supervised):
    """The first gate opens for some images, the second for none."""

    def inference_policy(self, threshold, images):
        first = tf.cast(images[:, 0, 0, 0] > 0, tf.float32)
        shut = tf.zeros_like(first)
        return Forced(tf.stack([first, shut], axis=1))


RUNS = IMAGES[:, 0, 0, 0] > 0


def statistics(model):
    return {
        weight.path: weight.numpy()
        for weight in model.weights
        if "moving" in weight.name
    }


def moments(maps):
    """Mean and unbiased variance of each channel."""
    maps = np.asarray(maps).reshape(-1, maps.shape[-1])
    return maps.mean(axis=0), maps.var(axis=0, ddof=1)


def normalised(norm, maps):
    """Training's normalisation, by the batch's biased variance."""
    maps = np.asarray(maps)
    mean, variance = maps.mean((0, 1, 2)), maps.var((0, 1, 2))
    scaled = (maps - mean) / np.sqrt(variance + layers.EPSILON)
    return scaled * norm.gamma.numpy() + norm.beta.numpy()


def relu(maps):
    return np.maximum(maps, 0).astype("float32")


def after_block_0(model, images):
    net, block = model.backbone, model.backbone.blocks[0]
    x = relu(normalised(net.stem_norm, net.stem_conv(images)))
    y = relu(normalised(block.norms[0], block.convolutions[0](x)))
    return relu(normalised(block.norms[1], block.convolutions[1](y)) + x)


def check(norm, per_batch):
    means, variances = zip(*per_batch)
    np.testing.assert_allclose(norm.moving_mean, np.mean(means, 0), atol=1e-4)
    np.testing.assert_allclose(
        norm.moving_variance, np.mean(variances, 0), rtol=1e-4
    )


@pytest.fixture(scope="module")
def model():
    """A network that was recalibrated, and what it was before."""
    model = cases.trained(cases.skipnet(blocks=(2, 1)), IMAGES)
    model.stage = Bright()
    before = {weight.path: weight.numpy() for weight in model.weights}
    recalibration.recalibrate(model, dataset(), 2)
    return model, before


def test_statistics_are_means_over_batches_of_the_images_that_run(model):
    model, _ = model
    assert 0 < RUNS[:3].sum() < 3 and 0 < RUNS[3:].sum() < 3
    check(
        model.backbone.stem_norm,
        [moments(model.backbone.stem_conv(images)) for images in BATCHES],
    )
    block = model.backbone.blocks[1]
    maps = [after_block_0(model, images) for images in BATCHES]
    chosen = [x[runs] for x, runs in zip(maps, (RUNS[:3], RUNS[3:]))]
    check(block.norms[0], [moments(block.convolutions[0](x)) for x in chosen])


def test_a_block_that_no_image_runs_keeps_its_statistics(model):
    model, before = model
    after = statistics(model)
    kept = {path for path in after if (after[path] == before[path]).all()}
    norms = model.backbone.blocks[2].norms
    shut = {w.path for n in norms for w in (n.moving_mean, n.moving_variance)}
    assert kept == shut  # projections are computed for all images


def test_trained_weights_and_the_execution_of_training_stay(model):
    model, before = model
    for weight in model.weights:
        if "moving" not in weight.name:
            np.testing.assert_array_equal(weight, before[weight.path])
    assert model.training_execution == "masked"


def test_a_block_that_ran_for_one_batch_has_the_statistics_of_that_batch():
    model = cases.trained(cases.skipnet(blocks=(2, 1)), IMAGES)
    model.stage = Bright()
    dark = np.concatenate([-np.abs(BATCHES[1]), BATCHES[0]])
    recalibration.recalibrate(model, dataset(dark))
    block = model.backbone.blocks[1]
    chosen = after_block_0(model, BATCHES[0])[RUNS[:3]]
    check(block.norms[0], [moments(block.convolutions[0](chosen))])


def test_imposed_decisions_go_before_the_policy():
    model = cases.trained(cases.skipnet(blocks=(2, 1)), IMAGES)
    before = statistics(model)
    recalibration.recalibrate(model, dataset(), 1, actions=(0, 1))
    after = statistics(model)
    kept = {path for path in after if (after[path] == before[path]).all()}
    norms = model.backbone.blocks[1].norms
    shut = {w.path for n in norms for w in (n.moving_mean, n.moving_variance)}
    assert kept == shut


@pytest.mark.parametrize("trainable", [True, False])
def test_a_dense_network_and_a_while_that_ends(trainable):
    model = skipnet_tf.cifar_resnet(8)
    model.trainable = trainable
    before = statistics(model)
    with recalibration.recalibrated(model, dataset(), 1):
        check(model.stem_norm, [moments(model.stem_conv(BATCHES[0]))])
    for path, value in statistics(model).items():
        np.testing.assert_array_equal(value, before[path])
    assert model.stem_norm.trainable is trainable


def test_what_cannot_be_is_refused_and_changes_nothing():
    model = cases.skipnet(blocks=(2, 1))
    before = statistics(model)
    short = dataset().filter(lambda images, labels: True)  # of unknown size

    def message(*arguments, **others):
        with pytest.raises(ValueError) as error:
            recalibration.recalibrate(model, *arguments, **others)
        return str(error.value)

    assert "`batches` must be a positive int" in message(dataset(), 0)
    assert "`batches` must be a positive int" in message(dataset(), 1.5)
    few = "`dataset` must hold 3 or more batches. Received: 2"
    assert message(dataset(), 3) == message(short, 3) == few
    assert "`actions` must be 2 zeros" in message(dataset(), actions=(1,))
    for path, value in statistics(model).items():
        np.testing.assert_array_equal(value, before[path])
