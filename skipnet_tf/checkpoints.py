"""Checkpoints to resume from and weights to start from."""

import math
import os
import shutil

import keras
import tensorflow as tf

from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet

_KEPT = 2
# Weights, momentum and one more copy while it is written, for each of the
# checkpoints kept and for the final model.
_COPIES_ON_DISK = 3 * (_KEPT + 2)


def manager(
    model: ResNet | SkipNet, steps: tf.Variable, folder: str
) -> tf.train.CheckpointManager:
    """Checkpoints of weights, optimizer and stage of a compiled model.

    Args:
        model: Compiled network.
        steps: Int64 variable, the training steps done.
        folder: String, where checkpoints are kept.

    Returns:
        A manager whose `checkpoint.restore` brings back every variable.
    """
    # Variables are listed one by one: tf.train.Checkpoint(model) does not
    # look into lists of Keras layers and would silently leave some out.
    variables = [*model.weights, *model.optimizer.variables]
    stage = getattr(model, "stage", None)
    checkpoint = tf.train.Checkpoint(
        variables=[variable.value for variable in variables],
        stage=stage.variables if stage else [],
        steps=steps,
    )
    return tf.train.CheckpointManager(checkpoint, folder, max_to_keep=_KEPT)


def check_disk(model: ResNet | SkipNet, folder: str) -> None:
    """Refuses a disk without room for the checkpoints of `model`.

    Args:
        model: Network to be trained.
        folder: String, where checkpoints will be kept.

    Raises:
        ValueError: If there is too little room.
    """
    size = 4 * sum(math.prod(weight.shape) for weight in model.weights)
    free = shutil.disk_usage(folder).free
    if free < _COPIES_ON_DISK * size:
        raise ValueError(
            f"`workdir` must have {_COPIES_ON_DISK * size / 1e6:.0f} MB free "
            f"for checkpoints. Received: {folder} with {free / 1e6:.0f} MB"
        )


def load_weights(model: ResNet | SkipNet, path: str) -> None:
    """Loads the weights of a `.keras` or `.weights.h5` file.

    A SkipNet also takes those of its dense network: its gates stay as they
    are. Call this before `compile`.

    Args:
        model: Network to receive the weights.
        path: String, the file.

    Raises:
        ValueError: If the file is missing or of another architecture.
    """
    if not os.path.exists(path):
        raise ValueError(
            f"`path` must be a weights file. Received: path={path}, "
            "which does not exist"
        )
    candidates = [model]
    if isinstance(model, SkipNet):
        candidates.append(model.backbone)
    reason = None
    for candidate in candidates:
        try:
            if path.endswith(".keras"):
                saved = keras.saving.load_model(path, compile=False)
                _copy_weights(saved, candidate)
            else:
                candidate.load_weights(path)
            return
        except (ValueError, KeyError, OSError) as error:
            reason = error
    raise ValueError(
        f"`path` must hold weights of {model.name} or of its dense network. "
        f"Received: path={path}, which is of another architecture or not a "
        "weights file"
    ) from reason


def _copy_weights(source, target):
    if type(source) is not type(target):
        raise ValueError("another class of network")
    target.set_weights(source.get_weights())
