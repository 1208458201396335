"""Weights of other implementations.

Published SkipNets (Wang et al., github.com/ucbdrive/skipnet) and ResNets in
torchvision's naming, as a mapping from entry name to numpy array, and the
ResNets of `keras.applications`. PyTorch is needed for its files alone, see
`state_dicts.read_state_dict`.
"""

import collections
import difflib
import re
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from skipnet_tf import entries
from skipnet_tf import state_dicts
from skipnet_tf.layers import EPSILON
from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet


def load_pytorch_weights(
    model: ResNet | SkipNet,
    state_dict: Mapping[str, np.ndarray],
    new_classifier: bool = False,
) -> None:
    """Loads the state dict of a ResNet or of a published SkipNet.

    A ResNet has torchvision's names, or those of the CIFAR networks that
    follow it: `linear` for `fc`, `shortcut` for `downsample`, or shortcuts
    without parameters ("option A"), which become projections of zeros and
    ones with the same result, see `match_shortcuts`. A SkipNet takes one too:
    its gates stay as they are.

    A `module.` prefix, `num_batches_tracked` and the gate after the last
    block, whose output nobody reads, are ignored. A state dict does not tell
    where a bottleneck strides; torchvision's is `stride_on="3x3"`. Nothing is
    changed unless everything fits.

    Args:
        model: A `SkipNet` or `ResNet`.
        state_dict: Mapping from entry name to array, in PyTorch's layouts.
        new_classifier: Bool, leave the classifier of `model` as it is, for
            other classes. Defaults to `False`.

    Raises:
        ValueError: If entries are missing, left over or of the wrong shape;
            the message names them.
    """
    given = state_dicts.canonical(state_dict)
    dense = any(name.startswith("layer") for name in given)
    if dense or isinstance(model, ResNet):
        wanted = entries.of_torchvision(backbone_of(model))
    else:
        wanted = entries.of_published(model)
        unused = entries.last_gate(model)
        given = {n: v for n, v in given.items() if not n.startswith(unused)}
    _load(model, wanted, given, "state_dict", new_classifier)


def load_keras_weights(
    model: ResNet | SkipNet,
    application: keras.Model,
    rgb: bool = False,
    new_classifier: bool = False,
) -> None:
    """Loads the weights of a ResNet of `keras.applications`.

    Their convolutions have biases and their batch normalisation another
    epsilon: both end up in the moving statistics, and the logits are the
    same. A SkipNet takes the weights into its backbone; its gates stay as
    they are. Nothing is changed unless everything fits.

    The published weights expect BGR pixels, 0 to 255, minus the means
    (103.939, 116.779, 123.68).

    Args:
        model: An `imagenet_resnet` or `imagenet_skipnet` of the same depth
            with `stride_on="1x1"`.
        application: `keras.applications` ResNet50, ResNet101 or ResNet152.
        rgb: Bool, reverse the channels that the stem reads: weights that
            were trained on BGR then take RGB. Defaults to `False`.
        new_classifier: Bool, leave the classifier of `model` as it is, for
            other classes. Defaults to `False`.

    Raises:
        ValueError: If the networks differ in depth, stride or number of
            classes, or `application` is another network.
    """
    resnet = backbone_of(model)
    _check_application(resnet, application)
    given = {}
    for layer in application.layers:
        for weight in layer.weights:
            value = keras.ops.convert_to_numpy(weight)
            given[f"{layer.name}/{weight.name}"] = value
        if isinstance(layer, keras.layers.BatchNormalization):
            variance = f"{layer.name}/moving_variance"
            given[variance] = given[variance] + layer.epsilon - EPSILON
    if rgb:
        given["conv1_conv/kernel"] = given["conv1_conv/kernel"][:, :, ::-1]
    wanted = entries.of_keras(resnet)
    _load(model, wanted, given, "application", new_classifier)


def match_shortcuts(model: ResNet | SkipNet, images: tf.Tensor) -> int:
    """Prepares imported parameter-free shortcuts for training.

    Their batch normalisation passes on what it gets, at inference. In
    training it would normalise it, and the network would be another one from
    the first step. Here scale and shift become the statistics of the
    projection on some images, and so do the moving ones: inference stays what
    it was, and training starts from about the same function.

    Args:
        model: A `ResNet` or `SkipNet` after `load_pytorch_weights`.
        images: Normalised float tensor `(batch, height, width, channels)`,
            some hundred training images.

    Returns:
        Int, the number of shortcuts that were such an identity; others stay
        as they are.
    """
    resnet, matched = backbone_of(model), 0
    features = resnet.stem(images)
    for block in resnet.blocks:
        norm = block.projection_norm
        if norm is not None and _is_identity(norm):
            projected = tf.cast(block.projection(features), "float32")
            mean, variance = tf.nn.moments(projected, (0, 1, 2))
            norm.gamma.assign(tf.sqrt(variance + EPSILON))
            norm.beta.assign(mean)
            norm.moving_mean.assign(mean)
            norm.moving_variance.assign(variance)
            matched += 1
        features = block(features)
    return matched


def has_identity_shortcuts(model: ResNet | SkipNet) -> bool:
    """Whether `match_shortcuts` would find any."""
    norms = (block.projection_norm for block in backbone_of(model).blocks)
    return any(norm is not None and _is_identity(norm) for norm in norms)


def backbone_of(model: ResNet | SkipNet) -> ResNet:
    """The dense network of a SkipNet; a dense network itself."""
    return model.backbone if isinstance(model, SkipNet) else model


def other_classes(
    model: ResNet | SkipNet, classes: int, argument: str
) -> ValueError:
    """The error of weights that fit but for their number of classes."""
    return ValueError(
        f"`{argument}` is of {classes} classes, {model.name} has "
        f"{model.num_classes}: make it with num_classes={classes}, or keep "
        "its own, untrained classifier with new_classifier=True"
    )


def _is_identity(norm):
    return (
        np.all(norm.gamma == 1)
        and not np.any(norm.beta)
        and not np.any(norm.moving_mean)
        and np.all(norm.moving_variance == state_dicts.IDENTITY_VARIANCE)
    )


def _load(model, wanted, given, argument, new_classifier):
    """Assigns every entry, or raises and assigns none."""
    *others, kernel, bias = wanted  # of the classifier
    if new_classifier:
        spare = {*kernel.sources, *bias.sources}
        wanted = others
        given = {n: value for n, value in given.items() if n not in spare}
    shapes = {name: entry.shape for entry in wanted for name in entry.sources}
    _check_names(model, shapes, given, argument)
    wrong = [n for n, shape in shapes.items() if not _fits(given[n], shape)]
    if wrong and set(wrong) == {*kernel.sources, *bias.sources}:
        raise other_classes(model, given[wrong[-1]].size, argument)
    if wrong:
        _refuse_shapes(model, shapes, given, wrong, argument)
    for entry in wanted:
        values = [given[name].reshape(entry.shape) for name in entry.sources]
        entry.variable.assign(entry.convert(*values))


def _fits(value, shape):
    # Some products are saved as 1x1 convolutions, `(out, in, 1, 1)`.
    return value.shape in (shape, (*shape, 1, 1))


def _check_names(model, wanted, given, argument):
    missing = sorted(wanted.keys() - given.keys())
    extra = sorted(given.keys() - wanted.keys())
    parts = []
    if missing:
        parts.append(f"missing entries: {_some(missing, extra)}")
    if extra:
        parts.append(
            f"entries this network does not have: {_some(extra, missing)}"
        )
    if parts:
        raise ValueError(
            f"`{argument}` does not fit {model.name}; " + "; ".join(parts)
        )


def _some(names, others=(), limit=6):
    """The first few names, each with the likeliest of the others."""
    shown = []
    for name in names[:limit]:
        close = difflib.get_close_matches(name, others, 1)
        shown.append(name + (f" (for {close[0]}?)" if close else ""))
    more = len(names) - limit
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _refuse_shapes(model, shapes, given, wrong, argument):
    shown = [
        f"{name} {given[name].shape}, expected {shapes[name]}" for name in wrong
    ]
    raise ValueError(
        f"`{argument}` is of another architecture: entries of the wrong shape "
        f"for {model.name}: {_some(shown)}"
    )


def _check_application(resnet, application):
    """Refuses, in words, what would be a page of missing entries."""
    ours = resnet.arguments
    if ours["stride_on"] != "1x1":
        raise ValueError(
            "`model` must stride as keras.applications does; make it with "
            f'stride_on="1x1". Received: stride_on={ours["stride_on"]!r}'
        )
    layers = " ".join(layer.name for layer in application.layers)
    groups = re.findall(r"conv(\d+)_block\d+_1_conv\b", layers)
    blocks = list(collections.Counter(groups).values())
    if blocks != ours["blocks"]:
        raise ValueError(
            "`application` must be the ResNet of keras.applications with "
            f"{ours['blocks']} blocks, as {resnet.name} has. "
            f"Received: {application.name} with {blocks}"
        )
