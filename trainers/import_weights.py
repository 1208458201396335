"""Turns other people's weights into a network file of ours.

    python trainers/import_weights.py --checkpoint=resnet20.th \
        --family=cifar --depth=20 --out=resnet20.keras
    python trainers/import_weights.py --keras_application=ResNet50 \
        --keras_weights=imagenet --gate=rnn --out=skipnet50.keras

Checkpoints are PyTorch's, of ResNets in torchvision's naming and of published
SkipNets. With `--gate` a dense network becomes a SkipNet whose gates run every
block; `--init_from` of the trainers takes the file.
"""

import os

import keras
import shared
from absl import flags

import skipnet_tf
from skipnet_tf import models
from skipnet_tf import state_dicts
from skipnet_tf.skipnet import GATES

# What.
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "State dict, .pth, .pt, .th, .tar or .safetensors; this or "
    "--keras_application.",
)
_APPLICATION = flags.DEFINE_enum(
    "keras_application",
    None,
    ["ResNet50", "ResNet101", "ResNet152"],
    "Network of keras.applications.",
)
_APPLICATION_WEIGHTS = flags.DEFINE_string(
    "keras_weights", "imagenet", "imagenet, which is downloaded, or a file."
)
_RGB = flags.DEFINE_bool(
    "rgb", False, "Let the stem of --keras_application take RGB, not BGR."
)

# Into what.
_FAMILY = flags.DEFINE_enum(
    "family", None, ["cifar", "imagenet"], "Networks, with --checkpoint."
)
_DEPTH = flags.DEFINE_integer("depth", None, "Layers, with --checkpoint.")
_STRIDE_ON = flags.DEFINE_enum(
    "stride_on",
    "3x3",
    ["3x3", "1x1"],
    "Convolution of a bottleneck that strides, with --checkpoint.",
)
_NUM_CLASSES = flags.DEFINE_integer(
    "num_classes", None, "Defaults to those of the weights."
)
_NEW_CLASSIFIER = flags.DEFINE_bool(
    "new_classifier", False, "Leave the classifier untrained."
)
_GATE = flags.DEFINE_enum(
    "gate", None, GATES, "Write a SkipNet. Defaults to a dense network."
)
_OUT = flags.DEFINE_string("out", None, "File to write, .keras.", required=True)


def main(argv):
    del argv
    if (_CHECKPOINT.value is None) == (_APPLICATION.value is None):
        raise ValueError("give one of --checkpoint and --keras_application")
    if not _OUT.value.endswith(".keras"):
        raise ValueError(f"--out must end in .keras. Received: {_OUT.value}")
    read = _read_checkpoint if _CHECKPOINT.value else _read_application
    model, line = read()
    os.makedirs(os.path.dirname(_OUT.value) or ".", exist_ok=True)
    model.save(_OUT.value)
    print(f"{line}: {_OUT.value}")


def _read_checkpoint():
    if _FAMILY.value is None or _DEPTH.value is None:
        raise ValueError("--checkpoint needs --family and --depth")
    given = state_dicts.read_state_dict(_CHECKPOINT.value)
    classes = state_dicts.num_classes(state_dicts.canonical(given))
    model = _make(_FAMILY.value, _DEPTH.value, classes, _STRIDE_ON.value)
    skipnet_tf.load_pytorch_weights(model, given, _NEW_CLASSIFIER.value)
    return model, _line(len(given), classes, _DEPTH.value)


def _read_application():
    kind = getattr(keras.applications, _APPLICATION.value)
    classes = {"classes": _NUM_CLASSES.value or 1000}
    if _APPLICATION_WEIGHTS.value == "imagenet":
        classes = {}
    try:
        network = kind(
            weights=_APPLICATION_WEIGHTS.value,
            classifier_activation=None,
            **classes,
        )
    except Exception as error:  # what Keras raises when it cannot download
        raise ValueError(
            "--keras_weights must be a file, or imagenet where these can be "
            f"downloaded ({error}). Received: {_APPLICATION_WEIGHTS.value}"
        ) from error
    depth = int(_APPLICATION.value.removeprefix("ResNet"))
    model = _make("imagenet", depth, network.output_shape[-1], "1x1")
    skipnet_tf.load_keras_weights(
        model, network, _RGB.value, _NEW_CLASSIFIER.value
    )
    return model, _line(len(network.weights), network.output_shape[-1], depth)


def _line(entries, classes, depth):
    return f"{entries} entries, {classes} classes, depth {depth}"


def _make(family, depth, classes, stride_on):
    arguments = {"depth": depth, "num_classes": _NUM_CLASSES.value or classes}
    if _GATE.value:
        arguments["gate"] = _GATE.value
    if family == "imagenet":
        arguments["stride_on"] = stride_on
    return models.NETWORKS[family][_GATE.value is not None](**arguments)


if __name__ == "__main__":
    shared.run(main)
