"""Checkpoints to resume from and weights to start from."""

import math
import os
import shutil

import h5py
import keras
import tensorflow as tf

from skipnet_tf import interop
from skipnet_tf import state_dicts
from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet

_KEPT = 2
# Weights, momentum and moving averages, of the checkpoints kept, the last good
# one, one that is being written and the final model.
_COPIES_ON_DISK = 3 * (_KEPT + 3)


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


def load_weights(
    model: ResNet | SkipNet, path: str, new_classifier: bool = False
) -> None:
    """Loads the weights of a file, ours or PyTorch's.

    A SkipNet also takes those of its dense network: its gates stay as they
    are. A dense network takes those within a `.keras` file of a SkipNet. A
    threshold is no weight, and stays. Call this before `compile`.

    Args:
        model: Network to receive the weights.
        path: String, a `.keras` or `.weights.h5` file, or a state dict that
            `skipnet_tf.load_pytorch_weights` takes: `.pth`, `.pt`, `.th`,
            `.tar`, `.safetensors`.
        new_classifier: Bool, leave the classifier of `model` as it is, for
            other classes. Defaults to `False`.

    Raises:
        ValueError: If the file is missing or of another architecture.
        ImportError: If the package that reads a state dict is missing.
    """
    if not os.path.exists(path):
        raise ValueError(
            f"`path` must be a weights file. Received: path={path}, "
            "which does not exist"
        )
    if path.endswith(state_dicts.SUFFIXES):
        state_dict = state_dicts.read_state_dict(path)
        interop.load_pytorch_weights(model, state_dict, new_classifier)
        return
    candidates = [model]
    if isinstance(model, SkipNet):
        candidates.append(model.backbone)
    reason = None
    for candidate in candidates:
        try:
            saved = _saved(path, candidate, model)
            break
        except (ValueError, KeyError, TypeError, OSError) as error:
            reason = error
    else:
        raise ValueError(
            f"`path` must hold weights of {model.name} or of its dense "
            f"network. Received: path={path}, which is of another "
            "architecture or not a weights file"
        ) from reason
    if saved.num_classes != model.num_classes and not new_classifier:
        raise interop.other_classes(model, saved.num_classes, "path")
    _copy_weights(saved, candidate, new_classifier)


def _saved(path, like, model):
    """The network in the file, if it has the architecture of `like`."""
    if path.endswith(".keras"):
        saved = keras.saving.load_model(path, compile=False)
        if isinstance(model, ResNet):
            saved = interop.backbone_of(saved)
    else:
        classes = {"num_classes": _classes(path)}
        saved = type(like).from_config({**like.get_config(), **classes})
        saved.load_weights(path)
    if type(saved) is not type(like):
        raise ValueError("another class of network")
    if _architecture(saved) != _architecture(like):
        raise ValueError("another architecture")
    return saved


def _architecture(model):
    # Blocks that stride elsewhere have weights of the same shapes.
    config = model.get_config()
    names = ("blocks", "filters", "bottleneck", "stem", "stride_on", "gate")
    return [config.get(name) for name in names]


def _classes(path):
    """Number of classes of a `.weights.h5` file, dense or gated."""
    with h5py.File(path) as file:
        backbone = file.get("backbone", file)
        return backbone["classifier/vars/0"].shape[-1]


def _copy_weights(source, target, new_classifier):
    own = set()
    if new_classifier:
        classifier = interop.backbone_of(target).classifier
        own = {id(weight) for weight in classifier.weights}
    for ours, theirs in zip(target.weights, source.weights, strict=True):
        if id(ours) not in own:
            ours.assign(theirs)
