"""Training steps of the contenders, each to be built in its own process."""

import keras
import tensorflow as tf
import tracing
from architectures import POLICIES
from architectures import Architecture

from skipnet_tf import policy
from skipnet_tf.optimizers import SGD
from skipnet_tf.reinforce import HybridReinforce
from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet
from skipnet_tf.stages import Supervised

_LEARNING_RATE = 0.01


class Imposed(HybridReinforce):
    """Hybrid reinforcement learning, but for the share of blocks that run.

    Decisions are drawn for every image and block, with a probability that is
    not the gates'; these are computed and trained all the same.

    Args:
        percent: Int, per cent of the images that run a block.
        execution: See `HybridReinforce`.
        baseline: See `HybridReinforce`. Defaults to `"none"`.
    """

    def __init__(self, percent: int, execution: str, baseline: str = "none"):
        super().__init__(execution=execution, baseline=baseline)
        self._rate = 1 - percent / 100

    def policy(self, seed, images):
        return policy.Random(self._rate, seed)


class KerasTraining:
    """The same batch again and again through what `fit` calls for a step.

    Args:
        model: A compiled `keras.Model`.
        architecture: The shapes.
        batch: Positive int, images in a step.
    """

    def __init__(
        self, model: keras.Model, architecture: Architecture, batch: int
    ):
        self._model = model
        model.make_train_function()
        data = tf.data.Dataset.from_tensors(architecture.random_batch(batch))
        self._batches = iter(data.repeat())
        self._logs = None

    @property
    def parameters(self) -> int:
        """Number of weights that are trained."""
        weights = self._model.trainable_variables
        return sum(weight.shape.num_elements() for weight in weights)

    def step(self) -> None:
        """One step of training."""
        self._logs = self._model.train_function(self._batches)

    def memory(self) -> float:
        """MiB of tensors alive during a step."""
        return tracing.peak_memory(self.step)

    def loss(self) -> float:
        """Mean of all steps."""
        return float(self._logs["loss"])


def build(
    architecture: Architecture,
    precision: str,
    kind: str,
    percent: int,
    batch: int,
    threads: int,
) -> KerasTraining:
    """One contender but PyTorch; call it before TensorFlow has run.

    Args:
        architecture: The shapes.
        precision: `"float32"` or `"bfloat16"`.
        kind: `"dense"`, `"sp"`, `"masked"`, `"conditional"`,
            `"self_critical"` (masked, and the thresholded policy run too) or
            `"keras"`.
        percent: Int, per cent of the images that run a block, of those that
            sample decisions.
        batch: Positive int, images in a step.
        threads: Positive int.

    Returns:
        The training.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(POLICIES[precision])
    model = compiled(architecture, kind, percent)
    return KerasTraining(model, architecture, batch)


def compiled(architecture: Architecture, kind: str, percent: int):
    """A model in the global precision, compiled; arguments as of `build`."""
    if kind == "keras":
        # Imported here: nobody else needs it.
        import plain_keras

        model = plain_keras.resnet(architecture)
        model.compile(
            keras.optimizers.SGD(_LEARNING_RATE, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model
    shapes = {
        "blocks": architecture.blocks,
        "filters": architecture.filters,
        "bottleneck": architecture.bottleneck,
        "stem": architecture.stem,
        "num_classes": architecture.classes,
        "input_shape": (architecture.size, architecture.size, 3),
    }
    # Gates stay as open as they start: where they shut, the thresholded policy
    # of "self_critical" would soon cost nothing.
    optimizer = SGD(_LEARNING_RATE, momentum=0.9, l2=1e-4, gate_rate=0.0)
    if kind == "dense":
        model = ResNet(**shapes)
        model.compile(optimizer, metrics=["accuracy"])
        return model
    stage = Supervised()
    if kind == "self_critical":
        stage = Imposed(percent, "masked", kind)
    elif kind != "sp":
        stage = Imposed(percent, kind)
    model = SkipNet(**shapes)
    model.compile(optimizer, metrics=["accuracy"], stage=stage)
    return model
