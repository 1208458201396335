"""Which variable is made from which entries of other people's weights.

Three namings: torchvision's, that of the published SkipNets and that of
`keras.applications`. The last two entries are those of the classifier.
"""

import dataclasses
import re
from collections.abc import Callable

import keras

from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet


@dataclasses.dataclass(frozen=True)
class Entry:
    """A variable and what it is made from.

    Attributes:
        variable: The variable.
        sources: Tuple of strings, the names of the entries.
        shape: Tuple of ints, that of each entry.
        convert: Callable, the value of the variable from those of the entries.
    """

    variable: keras.Variable
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    convert: Callable


def of_torchvision(resnet: ResNet) -> list[Entry]:
    """Entries of a dense network: `layer1.0.conv1.weight`, ..., `fc.bias`."""

    def prefix(name):
        group, block = _place(name)
        return f"layer{group}.{block}"

    return _backbone(resnet, prefix) + _product(resnet.classifier, "fc")


def of_published(model: SkipNet) -> list[Entry]:
    """Entries of a published SkipNet: `group1_layer0.conv1.weight`, ...

    Args:
        model: A `SkipNet` with gates `"rnn"`, `"ff1"` or `"ff2"`.

    Returns:
        List of entries.

    Raises:
        ValueError: If the gates are others.
    """
    if model.gate not in ("rnn", "ff1", "ff2"):
        raise ValueError(
            "`model` must have gates that were published, rnn, ff1 or ff2, or "
            f"be given a dense network. Received: gate={model.gate!r}"
        )
    backbone = model.backbone
    found = _backbone(backbone, lambda name: name.replace("block", "layer"))
    if model.gate == "rnn":
        found += _recurrence(model.gates[0].recurrence)
    for gate, block in zip(model.gates, backbone.blocks):
        found += _gate(model.gate, gate, _gate_name(block))
    return found + _product(backbone.classifier, "fc")


def last_gate(model: SkipNet) -> str:
    """Prefix of the published gate after the last block: nobody reads it."""
    return f"{_gate_name(model.backbone.blocks[-1])}."


def of_keras(resnet: ResNet) -> list[Entry]:
    """Entries of `keras.applications`: `conv1_conv/kernel`, ...

    A bias is part of a mean: batch normalisation subtracts both.
    """

    def stage(convolution, norm, prefix):
        bias, mean = f"{prefix}_conv/bias", f"{prefix}_bn/moving_mean"
        return [
            _same(convolution.kernel, f"{prefix}_conv/kernel"),
            _same(norm.gamma, f"{prefix}_bn/gamma"),
            _same(norm.beta, f"{prefix}_bn/beta"),
            _same(norm.moving_mean, mean, bias),
            _same(norm.moving_variance, f"{prefix}_bn/moving_variance"),
        ]

    found = stage(resnet.stem_conv, resnet.stem_norm, "conv1")
    for block in resnet.blocks:
        group, number = _place(block.name)
        prefix = f"conv{group + 1}_block{number + 1}"
        for index, convolution, norm in _stages(block):
            found += stage(convolution, norm, f"{prefix}_{index}")
    return found + [
        _same(resnet.classifier.kernel, "predictions/kernel"),
        _same(resnet.classifier.bias, "predictions/bias"),
    ]


def _place(name):
    """Group, from 1, and block, from 0, of a block."""
    return map(int, re.match(r"group(\d+)_block(\d+)", name).groups())


def _gate_name(block):
    return block.name.replace("block", "gate")


def _stages(block):
    """`(index, convolution, norm)`, from 1; 0 is the projection."""
    pairs = enumerate(zip(block.convolutions, block.norms), start=1)
    found = [(index, *pair) for index, pair in pairs]
    if block.projection is not None:
        found.append((0, block.projection, block.projection_norm))
    return found


def _backbone(resnet, block_prefix):
    found = _stage(resnet.stem_conv, resnet.stem_norm, "conv1", "bn1")
    for block in resnet.blocks:
        prefix = block_prefix(block.name)
        for index, convolution, norm in _stages(block):
            names = f"{prefix}.conv{index}", f"{prefix}.bn{index}"
            if index == 0:
                names = f"{prefix}.downsample.0", f"{prefix}.downsample.1"
            found += _stage(convolution, norm, *names)
    return found


def _gate(kind, gate, prefix):
    if kind == "rnn":
        return _product(gate.embedding, f"{prefix}.1")
    found = _stage(gate.conv1, gate.norm1, f"{prefix}.conv1", f"{prefix}.bn1")
    if kind == "ff1":
        names = f"{prefix}.conv2", f"{prefix}.bn2"
        found += _stage(gate.conv2, gate.norm2, *names)
    return found + _product(gate.decision, f"{prefix}.linear_layer")


def _recurrence(recurrence):
    # PyTorch and Keras both order the LSTM's gates i, f, g, o.
    cell, name = recurrence.cell, "control.rnn"
    return [
        _turned(cell.kernel, f"{name}.weight_ih_l0"),
        _turned(cell.recurrent_kernel, f"{name}.weight_hh_l0"),
        _turned(cell.bias, f"{name}.bias_ih_l0", f"{name}.bias_hh_l0"),
        *_product(recurrence.decision, "control.proj"),
    ]


def _stage(convolution, norm, name, norm_name):
    return [
        _turned(convolution.kernel, f"{name}.weight"),
        _turned(norm.gamma, f"{norm_name}.weight"),
        _turned(norm.beta, f"{norm_name}.bias"),
        _turned(norm.moving_mean, f"{norm_name}.running_mean"),
        _turned(norm.moving_variance, f"{norm_name}.running_var"),
    ]


def _product(layer, prefix):
    return [
        _turned(layer.kernel, f"{prefix}.weight"),
        _turned(layer.bias, f"{prefix}.bias"),
    ]


def _turned(variable, *sources):
    """From `(out, in, height, width)`; of two LSTM biases, their sum."""
    ours = tuple(variable.shape)
    shape = ours[-1:] + ours[-2:-1] + ours[:-2]
    axes = (*range(2, len(shape)), *reversed(range(len(shape))[:2]))
    return Entry(
        variable, sources, shape, lambda *values: sum(values).transpose(axes)
    )


def _same(variable, *sources):
    """As it is; of a mean and a bias, their difference."""
    shape = tuple(variable.shape)
    return Entry(variable, sources, shape, lambda value, bias=0: value - bias)
