"""SkipNet: a residual network with a gate before every block (Sec. 3.1)."""

import numbers

import keras
import tensorflow as tf

from skipnet_tf import ops
from skipnet_tf import policy as policies
from skipnet_tf.blocks import GatedBlock
from skipnet_tf.confidence import ConfidenceGate
from skipnet_tf.gate_form import tapped
from skipnet_tf.gates import FeedForwardGateI
from skipnet_tf.gates import FeedForwardGateII
from skipnet_tf.gates import PooledGate
from skipnet_tf.gates import Recurrence
from skipnet_tf.gates import RecurrentGate
from skipnet_tf.layers import dtype_policy
from skipnet_tf.layers import layer_config
from skipnet_tf.resnet import ResNet
from skipnet_tf.resnet import check_network
from skipnet_tf.training import StagedClassifier
from skipnet_tf.training import pixels

GATES = ("rnn", "ff1", "ff2", "pool", "confidence")


@keras.saving.register_keras_serializable(package="skipnet_tf")
class SkipNet(StagedClassifier):
    """A ResNet whose blocks run, or not, image by image (Sec. 3.1).

    Block 0 runs always; the gate after block i decides block i + 1 from the
    mixed output of block i, so that N blocks have N - 1 gates.

    Args:
        blocks: Tuple of positive ints, blocks in each group.
        filters: Tuple of positive ints, channels of each group.
        bottleneck: Bool, `BottleneckBlock` instead of `BasicBlock`. Defaults
            to `False`.
        stem: `"cifar"` or `"imagenet"`. Defaults to `"cifar"`.
        num_classes: Positive int. Defaults to `10`.
        input_shape: Tuple `(height, width, channels)`; height and width may
            be `None`. Defaults to `(None, None, 3)`.
        gate: `"rnn"`, `"ff1"`, `"ff2"`, `"pool"` or, if the last group has
            two blocks or more, `"confidence"`. Defaults to `"rnn"`.
        gate_init: `"open"`, every image starts with every block, or
            `"published"`. Defaults to `"open"`.
        threshold: Float, a block runs at inference where its probability is
            at least this. Defaults to `0.5`.
        execution: `"conditional"`, a skipped block is not computed at
            inference, or `"masked"`. Defaults to `"conditional"`.
        stride_on: `"3x3"` or, in bottleneck blocks, `"1x1"`: the convolution
            that takes the stride of a block. Defaults to `"3x3"`.
        name: Optional string.
        dtype: Optional dtype policy, such as `"mixed_bfloat16"`. Defaults to
            `None`, the global one.

    Call arguments:
        images: Normalised float tensor `(batch, height, width, channels)`.
        training: Whether the stage's policy and batch statistics are used.
            Defaults to `False`.

    Returns:
        Float32 logits `(batch, num_classes)`.

    Raises:
        ValueError: If an argument is not as described.

    Reference:
        - [Wang et al., 2018](https://arxiv.org/abs/1711.09485)
    """

    def __init__(
        self,
        blocks,
        filters,
        bottleneck=False,
        stem="cifar",
        num_classes=10,
        input_shape=(None, None, 3),
        gate="rnn",
        gate_init="open",
        threshold=0.5,
        execution="conditional",
        stride_on="3x3",
        name=None,
        dtype=None,
    ):
        check_network(blocks, filters, stem, num_classes, input_shape)
        super().__init__(groups=blocks, name=name, dtype=dtype)
        self.backbone = ResNet(
            blocks,
            filters,
            bottleneck,
            stem,
            num_classes,
            input_shape,
            stride_on,
            name="backbone",
            dtype=self.dtype_policy,
        )
        self.num_classes = num_classes
        self.gate = gate
        self.gate_init = gate_init
        self.threshold = threshold
        self.execution = ops.check_execution(execution)
        with dtype_policy(self.dtype_policy):
            self.gates = _make_gates(gate, gate_init, self.backbone)
            self.gated_blocks = [
                GatedBlock(block, name=f"{block.name}_gated")
                for block in self.backbone.blocks[1:]
            ]
            self.build((None, *input_shape))

    @property
    def threshold(self) -> float:
        """A block runs at inference where its probability is at least this."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float):
        if not isinstance(value, numbers.Real) or not 0.0 <= value <= 1.0:
            raise ValueError(
                "`threshold` must be a probability, in [0, 1]. "
                f"Received: threshold={value!r}"
            )
        self._threshold = value
        self._make_functions_again()

    def build(self, input_shape):
        if self.built:
            return
        before = self.backbone.blocks[:-1]
        for gate, gated, block in zip(self.gates, self.gated_blocks, before):
            shape = (None, None, None, block.filters * block.expansion)
            gate.build(shape)
            gated.build(shape)
        self.built = True

    def call(self, images, training=False):
        return self.route(images, training)["logits"]

    def route(self, images, training=False, actions=None) -> dict:
        """Logits together with everything the gates decided.

        Args:
            images: Normalised float tensor `(batch, height, width, channels)`.
            training: Whether to use batch statistics and the policy of the
                compiled stage (before any `compile`, the supervised stage:
                hard decisions, straight-through gradient). Defaults to
                `False`.
            actions: Optional tensor `(batch, gates)`, 1 runs a block, 0 skips
                it: decisions to impose. The gates are computed all the same.

        Returns:
            Dict of `logits` float32 `(batch, num_classes)`; `gate_logits` and
            `probabilities` of running each block, float32 `(batch, gates)`;
            `gates` float32 `(batch, gates)`, 0 or 1; `macs` int64 `(batch,)`,
            multiply-adds spent on each image.

        Raises:
            ValueError: If `images` or `actions` have the wrong shape.
        """
        if actions is not None:
            policy = policies.Forced(self._checked_actions(images, actions))
        elif training:
            policy = self.stage.policy(self.step_and_seed()[1], images)
        else:
            policy = self.stage.inference_policy(self.threshold, images)
        return self.route_with(images, policy, training)

    def route_with(self, images, policy, training=False) -> dict:
        """`route` under any policy, see `skipnet_tf.policy`."""
        if training:
            execution = self.training_execution
        else:  # XLA has no shapes that depend on data
            execution = "masked" if self.jit_compile else self.execution
        x = self.backbone.stem(images, training)
        x = self.backbone.blocks[0](x, training=training)
        state, all_logits, decisions = None, [], []
        for index, (gate, block) in enumerate(
            zip(self.gates, self.gated_blocks)
        ):
            x, logits, state = tapped(gate, x, state, training)
            decision = policy(logits, index)
            x = block(x, decision, training=training, execution=execution)
            all_logits.append(logits)
            decisions.append(decision)
        gate_logits = tf.stack(all_logits, axis=1)
        # Soft decisions are counted as what they become at inference.
        gates = ops.straight_through(tf.stack(decisions, axis=1))
        return {
            "logits": self.backbone.head(x),
            "gate_logits": gate_logits,
            "probabilities": tf.sigmoid(gate_logits),
            "gates": gates,
            "macs": self._spent(images, gates),
        }

    def multiply_adds(self, height, width):
        """`(fixed, blocks, gates)` for images of `height * width` pixels.

        Args:
            height: Int or int64 scalar tensor, in pixels.
            width: Int or int64 scalar tensor, in pixels.

        Returns:
            Multiply-adds that every image pays, and two lists, one number for
            each gated block and each gate.
        """
        fixed, blocks, _ = self.backbone.multiply_adds(height, width)
        height, width = self.backbone.stem_size(height, width)
        gates = []
        for gate, block in zip(self.gates, self.backbone.blocks):
            height, width = block.output_size(height, width)
            gates.append(gate.multiply_adds(height, width))
        return fixed, blocks, gates

    def sharpen(self, factor: float) -> None:
        """Multiplies the logits of all gates, so that they doubt less.

        Samples then follow the decisions at a threshold of 0.5, which stay
        as they are; the published code starts reinforcement learning on
        ImageNet so, with a factor of 20.

        Args:
            factor: Positive float.

        Raises:
            ValueError: If `factor` is not positive.
        """
        if not factor > 0:
            raise ValueError(
                "`factor` must be positive: another one would reverse or "
                f"erase what the gates have learnt. Received: factor={factor}"
            )
        # By identity: recurrent gates share one layer.
        weights = {id(w): w for g in self.gates for w in g.last_weights()}
        for weight in weights.values():
            weight.assign(weight * factor)

    def dense_multiply_adds(self, images):
        """Multiply-adds of one image through all blocks without gates."""
        fixed, blocks, _ = self.multiply_adds(*pixels(images))
        return tf.cast(fixed + sum(blocks), tf.int64)

    def _spent(self, images, gates):
        fixed, blocks, costs = self.multiply_adds(*pixels(images))
        paid = tf.cast(fixed + sum(costs), tf.int64)
        run = tf.cast(gates, tf.int64)
        return paid + tf.reduce_sum(
            run * tf.stack([tf.cast(b, tf.int64) for b in blocks]), axis=1
        )

    def _checked_actions(self, images, actions):
        actions = tf.convert_to_tensor(actions)
        batch = tf.convert_to_tensor(images).shape[0]
        expected = tf.TensorShape([batch, len(self.gates)])
        if not actions.shape.is_compatible_with(expected):
            raise ValueError(
                f"`actions` must have shape {expected}, one column for each "
                f"gate. Received: actions of shape {actions.shape}"
            )
        # What a graph learns only when it runs; one row would broadcast.
        tf.debugging.assert_equal(
            tf.shape(images)[0],
            tf.shape(actions)[0],
            "`actions` must have one row for each image",
        )
        return actions

    def get_config(self):
        # Not the config of keras.Model: the constructor rebuilds the graph.
        return {
            **self.backbone.arguments,
            "gate": self.gate,
            "gate_init": self.gate_init,
            "threshold": self.threshold,
            "execution": self.execution,
            **layer_config(self),
        }

    @classmethod
    def from_config(cls, config):
        """A network with the constructor arguments in `config`."""
        dtype = keras.saving.deserialize_keras_object(config.get("dtype"))
        return cls(**{**config, "dtype": dtype})


def _make_gates(gate, init, backbone):
    names = [f"{block.name}_gate" for block in backbone.blocks[1:]]
    if gate == "rnn":
        shared = Recurrence(init=init, name="recurrence")
        return [
            RecurrentGate(init=init, recurrence=shared, name=name)
            for name in names
        ]
    if gate == "confidence":
        return _asking_gates(init, backbone, names)
    kinds = {
        "ff1": FeedForwardGateI,
        "ff2": FeedForwardGateII,
        "pool": PooledGate,
    }
    if gate not in kinds:
        raise ValueError(
            f"`gate` must be one of {GATES}. Received: gate={gate!r}"
        )
    return [kinds[gate](init=init, name=name) for name in names]


def _asking_gates(init, backbone, names):
    """Gates that ask the classifier, between blocks of the last group."""
    last = backbone.arguments["blocks"][-1]
    if last < 2:
        raise ValueError(
            '`gate="confidence"` needs two blocks or more in the last group, '
            "between which the classifier can be asked. "
            f"Received: blocks={backbone.arguments['blocks']}"
        )
    asked = [None] * len(names)
    asked[1 - last :] = [backbone.classifier] * (last - 1)
    return [
        ConfidenceGate(classifier, init, name)
        for classifier, name in zip(asked, names)
    ]
