"""The network as it is served (Sec. 3.1, Eq. 1): constants and three cases.

A block is computed for no row, for some rows, which are gathered and put
back, or for all rows as they lie; what happens is decided inside the graph,
batch by batch. One graph serves every kind of decision.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from skipnet_tf import folded_gates
from skipnet_tf import folding
from skipnet_tf import ops
from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet

PRECISIONS = ("float32", "bfloat16")


class FrozenNetwork:
    """A trained network as a graph of constants.

    Decisions are cut-offs: the block behind a gate runs for an image where
    the gate's logit is at least the cut-off. Plus and minus infinity impose a
    decision; the gates are computed all the same.

    Args:
        model: A `SkipNet` or dense `ResNet`.
        precision: `"float32"` or `"bfloat16"`, of convolutions; gates and
            classifier are float32 in any case. Defaults to `"float32"`.

    Call arguments:
        images: Normalised float32 tensor `(batch, height, width, 3)`.
        cutoffs: Float32 tensor `(batch, gates)`, in logits.

    Returns:
        Dict of `logits` float32 `(batch, num_classes)`; `probabilities` of
        running each block and `gates`, float32 `(batch, gates)`; `macs` int64
        `(batch,)`, multiply-adds spent on each image, gates included.

    Raises:
        ValueError: If `precision` is unknown.
    """

    def __init__(self, model: ResNet | SkipNet, precision: str = "float32"):
        if precision not in PRECISIONS:
            raise ValueError(
                f"`precision` must be one of {PRECISIONS}. "
                f"Received: precision={precision!r}"
            )
        gated = isinstance(model, SkipNet)
        backbone = model.backbone if gated else model
        self._dtype = tf.as_dtype(precision)
        self._stem = folding.Convolution.fold(
            backbone.stem_conv, backbone.stem_norm
        )
        self._large_stem = backbone.large_stem
        # Shared by the end of the network and gates that ask it.
        self._classifier = folding.Dense.fold(backbone.classifier)
        self._classify = folding.shared(self._classifier)
        gates = [
            folded_gates.fold_gate(gate, self._classify)
            for gate in (model.gates if gated else ())
        ]
        blocks = [_Block(block) for block in backbone.blocks]
        self._ungated = blocks[: len(blocks) - len(gates)]
        self._gated = list(zip(gates, blocks[len(self._ungated) :]))
        self._decide = [folding.shared(gate) for gate in gates]
        # Gates without convolution read means. The block before brings them:
        # the means of a row that it skipped are what they were. So does the
        # last block for the classifier.
        self._reads_means = [gate.reads_means for gate in gates]
        self._reads_means += self._reads_means[-1:]
        self._count()

    @property
    def gates(self) -> int:
        """Number of gates."""
        return len(self._gated)

    def _count(self):
        """Multiply-adds of one image, to be multiplied with its areas."""
        fixed = self._stem.multiply_adds(0)
        fixed += self._classifier.multiply_adds()
        halvings = 2 if self._large_stem else 0
        for block in self._ungated:
            cost, projection, halvings = block.multiply_adds(halvings)
            fixed += cost + projection
        costs = []
        for gate, block in self._gated:
            fixed += gate.multiply_adds(halvings)
            cost, projection, halvings = block.multiply_adds(halvings)
            fixed += projection
            costs.append(cost)
        costs = np.reshape([fixed, *costs], (-1, len(fixed)))
        # Without the areas of maps that are smaller than any in the network.
        length = 1 + np.nonzero(costs.any(axis=0))[0].max()
        self._fixed, *self._costs = costs[:, :length]

    def __call__(self, images: tf.Tensor, cutoffs: tf.Tensor) -> dict:
        maps = self._run_stem(tf.cast(images, self._dtype))
        for block in self._ungated:
            maps = block.transform(maps, block.shortcut(maps))
        # All biases at once, and not one by one in every gate.
        biases = [gate.bias for gate, _ in self._gated]
        biases = tf.constant(biases, tf.float32)
        cutoffs -= biases
        means, logits = self._run_gated(maps, cutoffs)
        gates = tf.cast(logits >= cutoffs, tf.float32)
        return {
            "logits": self._classify(means),
            "probabilities": tf.sigmoid(logits + biases),
            "gates": gates,
            "macs": self._spent(images, gates),
        }

    def _run_stem(self, images):
        maps = tf.nn.relu(self._stem(images))
        if self._large_stem:
            # Zeros cannot win against what a ReLU returns.
            maps = tf.pad(maps, [[0, 0], [1, 1], [1, 1], [0, 0]])
            maps = tf.nn.max_pool2d(maps, 3, 2, "VALID")
        return maps

    def _run_gated(self, maps, cutoffs):
        """Means over space of the last map, and the logits of all gates."""
        batch = tf.shape(maps)[0]
        if not self._gated:
            return ops.spatial_mean(maps), tf.zeros([batch, 0])
        if self._large_stem:
            return self._run_blocks(maps, cutoffs, _run_rows)
        # Blocks of small images take little more than starting operations:
        # one image alone needs fewer of them.
        several = _graph_function(
            lambda *inputs: self._run_blocks(*inputs, _run_rows)
        )
        single = _graph_function(
            lambda *inputs: self._run_blocks(*inputs, _run_image)
        )
        return tf.cond(
            tf.equal(batch, 1),
            lambda: single(maps, cutoffs),
            lambda: several(maps, cutoffs),
        )

    def _run_blocks(self, maps, cutoffs, run_chosen):
        features = _features(maps, self._reads_means[0])
        state = self._gated[0][0].initial_state(tf.shape(maps)[0])
        found = []
        columns = tf.split(cutoffs, self.gates, axis=1)
        for (_, block), decide, column, read in zip(
            self._gated, self._decide, columns, self._reads_means[1:]
        ):
            logits, state = decide(features, state)
            kept, before = block.shortcut(features[0]), features
            if kept is not features[0] or len(features) != 1 + read:
                before = _features(kept, read)
            features = run_chosen(
                lambda *maps: _features(block.transform(*maps), read),
                features[0],
                before,
                logits >= column,
                block.name,
            )
            found.append(logits)
        means = features[-1]
        if not self._reads_means[-1]:
            means = ops.spatial_mean(features[0])
        return means, tf.concat(found, axis=1)

    def _spent(self, images, gates):
        length = len(self._fixed)
        areas = folding.areas(images, length)
        always = tf.reduce_sum(self._fixed * areas)
        costs = np.reshape(self._costs, (self.gates, length))
        blocks = tf.reduce_sum(costs * areas, axis=1)
        run = tf.cast(gates, tf.int64)
        return always + tf.reduce_sum(run * blocks, axis=1)


def _features(maps, with_means):
    return [maps, ops.spatial_mean(maps)] if with_means else [maps]


# Eq. 1 in two forms. Arguments: the block, from maps and what it keeps of
# them to features; its maps; `before`, the features if it is skipped; bool
# `(batch, 1)`, where it runs; its name, which its operations bear.


def _run_image(block, maps, before, runs, name):
    """One image: nothing to gather, and one decision."""
    after = tf.cond(
        tf.reshape(runs, []),
        lambda: block(maps, before[0]),
        lambda: before,
        name=name,
    )
    return _shaped_as(before, after)


def _run_rows(block, maps, before, runs, name):
    """Any batch: no row, some rows or all rows."""
    kept = before[0]
    in_place = kept is maps

    # One computation for some and for all rows: the constants of a block are
    # in memory once, and in the running graph once for each signature.
    def run():
        all_run = tf.reduce_all(runs)
        rows = tf.unstack(tf.cast(tf.where(runs), tf.int32), 2, axis=1)[0]
        inputs = [kept] if in_place else [maps, kept]
        chosen = tf.cond(
            all_run,
            lambda: inputs,
            lambda: [tf.gather(tensor, rows) for tensor in inputs],
        )
        after = block(chosen[0], chosen[-1])
        return tf.cond(
            all_run,
            lambda: after,
            lambda: [
                _put_rows(old, rows, new, in_place)
                for old, new in zip(before, after)
            ],
        )

    after = tf.cond(tf.reduce_any(runs), run, lambda: before, name=name)
    return _shaped_as(before, after)


def _put_rows(tensor, rows, values, in_place):
    if not in_place:
        return tf.tensor_scatter_nd_update(tensor, rows[:, None], values)
    # Writes into the tensor, which saves copying all other rows. Sound here:
    # whatever else reads it, the gate, the decision and the rows gathered
    # from it, has been computed before `values` exists.
    return tf.raw_ops.InplaceUpdate(x=tensor, i=rows, v=values)


def _shaped_as(before, after):
    for old, new in zip(before, after):
        new.set_shape(old.shape)
    return after


class _Block:
    """The folded convolutions of a residual block."""

    def __init__(self, block):
        self.name = block.name
        self._convolutions = [
            folding.Convolution.fold(*pair)
            for pair in zip(block.convolutions, block.norms)
        ]
        self._projection = None
        if block.projection is not None:
            self._projection = folding.Convolution.fold(
                block.projection, block.projection_norm
            )
            self._project = folding.shared(self._projection)
        self.transform = folding.shared(self._transform)

    def shortcut(self, maps):
        """What a skipped block passes on: its input, or its projection."""
        return maps if self._projection is None else self._project(maps)

    def _transform(self, maps, kept):
        """F(x) of Eq. 1, given the shortcut of the same inputs."""
        *first, last = self._convolutions
        for convolution in first:
            maps = tf.nn.relu(convolution(maps))
        # In this form one kernel does convolution, sum and ReLU.
        return tf.nn.relu(last(maps) + kept)

    def multiply_adds(self, halvings):
        """`(block, projection, halvings of the output)`."""
        projection = folding.multiply_adds()
        if self._projection is not None:
            projection = self._projection.multiply_adds(halvings)
        block = folding.multiply_adds()
        for convolution in self._convolutions:
            block += convolution.multiply_adds(halvings)
            halvings += convolution.strides - 1
        return block, projection, halvings


def _graph_function(
    function: Callable,
) -> tf.types.experimental.PolymorphicFunction:
    """A function that stays one in the running graph.

    Inlined, all operations of the form that is not taken would be visited,
    to find that they have nothing to do.
    """
    return tf.function(
        function,
        autograph=False,
        experimental_attributes={"_noinline": True},
    )
