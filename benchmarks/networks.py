"""The networks that are compared: one set of weights, three ways to run it.

`gated`, a SkipNet; `dense`, its backbone without gates; `straight`, its
backbone without gates and without some of the blocks, which is what a gated
network would take if decisions and branches were free.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

import skipnet_tf
from skipnet_tf import preprocessing
from skipnet_tf import versions
from skipnet_tf.frozen import FrozenNetwork
from skipnet_tf.resnet import ResNet
from skipnet_tf.signatures import Signatures
from skipnet_tf.skipnet import SkipNet

STRAIGHT = (0, 50)  # per cent of the blocks behind gates


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of the comparison.

    Attributes:
        make: Function without arguments, to the `SkipNet`.
        dataset: String, how pixels are normalised.
        size: Int, height and width of the images in pixels.
        batches: Tuple of ints, images in a call unless asked for others.
    """

    make: Callable[[], SkipNet]
    dataset: str
    size: int
    batches: tuple[int, ...]


NETWORKS = {
    "resnet110": Network(
        functools.partial(skipnet_tf.cifar_skipnet, 110),
        "cifar10",
        32,
        (1, 8, 32, 128),
    ),
    **{
        f"resnet{depth}": Network(
            functools.partial(skipnet_tf.imagenet_skipnet, depth),
            "imagenet2012",
            224,
            (1, 8, 32),
        )
        for depth in (50, 101)
    },
}


class StraightLine(FrozenNetwork):
    """A dense network of which some blocks only pass on their shortcut.

    Exactly what a SkipNet computes under these decisions, stem, block 0 and
    projections included, without gates and without a branch.

    Args:
        dense: A `ResNet`.
        runs: Sequence of bools, for each block after block 0.
        precision: As of `FrozenNetwork`.
    """

    def __init__(self, dense, runs, precision):
        super().__init__(dense, precision)
        self._ungated = [
            block if run else _Shortcut(block)
            for block, run in zip(self._ungated, [True, *runs])
        ]
        self._count()


class _Shortcut:
    """What is left of a block that never runs."""

    def __init__(self, block):
        self._block = block
        self.shortcut = block.shortcut

    def transform(self, maps, kept):
        return kept

    def multiply_adds(self, halvings):
        cost, projection, halvings = self._block.multiply_adds(halvings)
        return 0 * cost, projection, halvings


def spread(gates: int, percent: int) -> list[bool]:
    """The blocks of a straight line: their share, evenly over the depth."""
    return [(i + 1) * percent // 100 > i * percent // 100 for i in range(gates)]


def export(
    network: Network, precision: str, folder: str
) -> dict[str | tuple, str]:
    """Exports what a folder does not have yet.

    Args:
        network: What to export.
        precision: `"float32"` or `"bfloat16"`.
        folder: String, made if missing.

    Returns:
        Dict from `"gated"`, `"dense"` and `("straight", percent)` to the
        folder of a SavedModel.
    """
    directories = {
        "gated": os.path.join(folder, "gated"),
        "dense": os.path.join(folder, "dense"),
    }
    for percent in STRAIGHT:
        name = f"straight{percent}"
        directories["straight", percent] = os.path.join(folder, name)
    paths = {key: os.path.join(d, "1") for key, d in directories.items()}
    if all(os.path.exists(path) for path in paths.values()):
        return paths
    keras.utils.set_random_seed(0)  # the same kernels in all precisions
    gated = with_random_weights(network.make())
    dense = ResNet.from_config(gated.backbone.get_config())
    dense.set_weights(gated.backbone.get_weights())
    for key, directory in directories.items():
        if os.path.exists(paths[key]):
            continue
        if key in ("gated", "dense"):
            skipnet_tf.export_saved_model(
                gated if key == "gated" else dense,
                directory,
                network.dataset,
                forced=key == "gated",
                precision=precision,
                warmup_batches=(1,),
            )
        else:
            runs = spread(len(gated.gates), key[1])
            frozen = StraightLine(dense, runs, precision)
            _export_straight(frozen, dense, network, directory)
    return paths


def _export_straight(frozen, dense, network, directory):
    """As `export_saved_model`, which has no network without blocks."""
    recipe = preprocessing.get(network.dataset)
    signatures = Signatures(frozen, dense, recipe, (), top=5).functions(False)
    with versions.new_version(directory) as (folder, _):
        tf.saved_model.save(tf.Module(), folder, signatures=signatures)


def with_random_weights(model: SkipNet) -> SkipNet:
    """Fills in weights that leave TensorFlow as much to do as trained ones.

    Speed does not depend on values, but an addition of zeros is removed, and
    then its convolution is not fused with what follows.
    """
    random = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("beta", "moving_mean", "bias"):
            weight.assign(random.normal(0, 0.1, weight.shape))
    # Otherwise every block would double the activations.
    for block in model.backbone.blocks:
        block.norms[-1].gamma.assign(0.1 * block.norms[-1].gamma)
    return model


def digest() -> str:
    """Of the code that exports: other code, other SavedModels."""
    files = sorted(pathlib.Path(skipnet_tf.__file__).parent.glob("*.py"))
    here = pathlib.Path(__file__)
    files += [here, here.with_name("peers.py")]
    code = b"".join(file.read_bytes() for file in files)
    return hashlib.sha256(code).hexdigest()[:12]
