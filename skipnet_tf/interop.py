"""Weights of other implementations.

The published SkipNet checkpoints (Wang et al., github.com/ucbdrive/skipnet)
and plain ResNets in torchvision's naming, as a mapping from entry name to
numpy array; PyTorch itself is not needed.
"""

import dataclasses
import difflib
import re
from collections.abc import Callable
from collections.abc import Mapping

import numpy as np

from skipnet_tf.gates import FeedForwardGateI
from skipnet_tf.gates import FeedForwardGateII
from skipnet_tf.gates import RecurrentGate
from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One variable of ours and the entries it is made from."""

    variable: object
    sources: tuple[str, ...]
    convert: Callable


def load_pytorch_weights(
    model: ResNet | SkipNet, state_dict: Mapping[str, np.ndarray]
) -> None:
    """Loads a published SkipNet or torchvision ResNet state dict.

    A `module.` prefix, `num_batches_tracked` and the gate after the last
    block, whose output nobody reads, are ignored; of the two copies of a
    down-sampling projection `downsample` wins over `_ds`. Nothing is changed
    unless everything fits.

    Args:
        model: A `SkipNet` (published names) or `ResNet` (torchvision names).
        state_dict: Mapping from entry name to array, in PyTorch's layouts.

    Raises:
        ValueError: If entries are missing, left over or of the wrong shape;
            the message names them.
    """
    given = _normalised(model, state_dict)
    entries = _entries(model)
    wanted = {name for entry in entries for name in entry.sources}
    _check_names(wanted, set(given))
    converted, wrong = [], []
    for entry in entries:
        value = _converted(entry, given)
        expected = tuple(entry.variable.shape)
        if value is None or value.shape != expected:
            shapes = [given[name].shape for name in entry.sources]
            wrong.append(f"{entry.sources[0]} {shapes[0]}")
        converted.append(value)
    if wrong:
        raise ValueError(
            "`state_dict` is of another architecture: entries of the wrong "
            f"shape for {model.name}: {_some(wrong)}"
        )
    for entry, value in zip(entries, converted):
        entry.variable.assign(value)


def _converted(entry, given):
    try:
        return entry.convert(*(given[name] for name in entry.sources))
    except ValueError:  # a rank that cannot be transposed, sums of two shapes
        return None


def _normalised(model, state_dict):
    given = {}
    for name, value in state_dict.items():
        name = name.removeprefix("module.")
        if not name.endswith("num_batches_tracked"):
            given[name] = np.asarray(value)
    if isinstance(model, SkipNet):
        _drop_last_gate(model, given)
    for name in [n for n in given if re.match(r"group\d+_ds\d+\.", n)]:
        group, rest = re.match(r"(group\d+)_ds\d+\.(.*)", name).groups()
        given.setdefault(f"{group}_layer0.downsample.{rest}", given[name])
        del given[name]
    return given


def _drop_last_gate(model, given):
    last = model.backbone.blocks[-1].name
    group, block = re.match(r"(group\d+)_block(\d+)", last).groups()
    for name in [n for n in given if n.startswith(f"{group}_gate{block}.")]:
        del given[name]


def _check_names(wanted, given):
    missing, extra = sorted(wanted - given), sorted(given - wanted)
    if not missing and not extra:
        return
    parts = []
    if missing:
        parts.append(f"missing entries: {_some(missing)}")
    if extra:
        hints = []
        for name in extra:
            close = difflib.get_close_matches(name, missing, 1)
            hints.append(name + (f" (for {close[0]}?)" if close else ""))
        parts.append(f"entries this network does not have: {_some(hints)}")
    raise ValueError(
        "`state_dict` does not fit the network; " + "; ".join(parts)
    )


def _some(names, limit=6):
    more = len(names) - limit
    text = ", ".join(names[:limit])
    return f"{text} and {more} more" if more > 0 else text


def _entries(model):
    if isinstance(model, SkipNet):
        return _backbone(model.backbone, _published_block) + _gates(model)
    return _backbone(model, _torchvision_block)


def _published_block(name):
    return name.replace("block", "layer")


def _torchvision_block(name):
    group, block = re.match(r"group(\d+)_block(\d+)", name).groups()
    return f"layer{group}.{block}"


def _backbone(resnet, block_prefix):
    entries = [_kernel(resnet.stem_conv, "conv1")]
    entries += _norm(resnet.stem_norm, "bn1")
    for block in resnet.blocks:
        prefix = block_prefix(block.name)
        pairs = zip(block.convolutions, block.norms)
        for index, (convolution, norm) in enumerate(pairs, start=1):
            entries.append(_kernel(convolution, f"{prefix}.conv{index}"))
            entries += _norm(norm, f"{prefix}.bn{index}")
        if block.projection is not None:
            down = f"{prefix}.downsample"
            entries.append(_kernel(block.projection, f"{down}.0"))
            entries += _norm(block.projection_norm, f"{down}.1")
    return entries + _dense(resnet.classifier, "fc")


def _gates(model):
    entries = []
    for gate, block in zip(model.gates, model.backbone.blocks):
        prefix = block.name.replace("block", "gate")
        if isinstance(gate, RecurrentGate):
            entries += _dense(gate.embedding, f"{prefix}.1")
            continue
        if not isinstance(gate, (FeedForwardGateI, FeedForwardGateII)):
            raise ValueError(
                "`model` must have gates that were published, rnn, ff1 or "
                f"ff2. Received: gate={model.gate!r}"
            )
        stages = [(gate.conv1, gate.norm1)]
        if isinstance(gate, FeedForwardGateI):
            stages.append((gate.conv2, gate.norm2))
        for index, (convolution, norm) in enumerate(stages, start=1):
            entries.append(_kernel(convolution, f"{prefix}.conv{index}"))
            entries += _norm(norm, f"{prefix}.bn{index}")
        entries += _dense(gate.decision, f"{prefix}.linear_layer")
    if model.gate == "rnn":
        entries += _recurrence(model.gates[0].recurrence)
    return entries


def _kernel(layer, prefix):
    return _Entry(
        layer.kernel, (f"{prefix}.weight",), lambda w: w.transpose(2, 3, 1, 0)
    )


def _norm(layer, prefix):
    pairs = (
        (layer.gamma, "weight"),
        (layer.beta, "bias"),
        (layer.moving_mean, "running_mean"),
        (layer.moving_variance, "running_var"),
    )
    return [
        _Entry(variable, (f"{prefix}.{name}",), np.asarray)
        for variable, name in pairs
    ]


def _dense(layer, prefix):
    # Some are saved as 1x1 convolutions, `(out, in, 1, 1)`.
    return [
        _Entry(
            layer.kernel,
            (f"{prefix}.weight",),
            lambda w: w.reshape(w.shape[0], -1).T,
        ),
        _Entry(layer.bias, (f"{prefix}.bias",), np.asarray),
    ]


def _recurrence(recurrence):
    # PyTorch and Keras both order the LSTM's gates i, f, g, o; PyTorch adds
    # two bias vectors where Keras keeps their sum.
    cell = recurrence.cell
    return [
        _Entry(cell.kernel, ("control.rnn.weight_ih_l0",), np.transpose),
        _Entry(
            cell.recurrent_kernel, ("control.rnn.weight_hh_l0",), np.transpose
        ),
        _Entry(
            cell.bias,
            ("control.rnn.bias_ih_l0", "control.rnn.bias_hh_l0"),
            np.add,
        ),
    ] + _dense(recurrence.decision, "control.proj")
