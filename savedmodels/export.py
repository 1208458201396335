"""Exports a trained network for TF Serving.

    python savedmodels/export.py --workdir=runs/digits --directory=served
    python savedmodels/export.py --model=skipnet.keras \
        --preprocessing=cifar10 --directory=served
    python savedmodels/export.py --weights=skipnet.weights.h5 --depth=38 \
        --gate=rnn --preprocessing=cifar10 --directory=served

With `--flagfile=FILE` the flags come from a file, one in a line.
"""

import os
import tempfile

import keras
import numpy as np
import plain_errors
import tensorflow as tf
import timing
import trained
from absl import app
from absl import flags
from absl import logging

from skipnet_tf import data
from skipnet_tf import export
from skipnet_tf import frozen
from skipnet_tf import models
from skipnet_tf.analysis import probes
from skipnet_tf.runs import open_run
from skipnet_tf.skipnet import GATES

# What.
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Work directory of a trainer; this, --model or --weights."
)
_STAGE = flags.DEFINE_string(
    "stage", None, "Stage of --workdir. Defaults to the last finished one."
)
_MODEL = flags.DEFINE_string("model", None, "Network file, .keras.")
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "Weights file, .weights.h5; needs --depth and --gate."
)
_DEPTH = flags.DEFINE_integer("depth", None, "Layers, with --weights.")
_GATE = flags.DEFINE_enum(
    "gate", None, (*GATES, "none"), "Gates, with --weights; none: dense."
)
_NUM_CLASSES = flags.DEFINE_integer(
    "num_classes", None, "With --weights. Defaults to the data set's."
)
_PREPROCESSING = flags.DEFINE_string(
    "preprocessing", None, "Data set. Defaults to that of --workdir."
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "Side of photographs in pixels, with --preprocessing. Defaults to 224.",
)
_NORMALIZATION = flags.DEFINE_string(
    "normalization",
    None,
    "Data set whose mean and standard deviation to use, with "
    "--preprocessing. Defaults to its own.",
)

# How.
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    frozen.PRECISIONS,
    "Of the convolutions; gates and classifier are float32 in any case.",
)
_FORCED = flags.DEFINE_bool(
    "forced", False, "Add a signature that takes the decisions as an input."
)
_TOP = flags.DEFINE_integer("top", 5, "Classes to return, at most all.")
_CLASS_NAMES = flags.DEFINE_string(
    "class_names",
    None,
    "Text file with a name in each line. Defaults to those of --workdir.",
)
_WARMUP_BATCHES = flags.DEFINE_list(
    "warmup_batches", ["1", "8"], "Images in the warm-up requests."
)
_BENCHMARK = flags.DEFINE_bool(
    "benchmark",
    False,
    "Time the export, and the dense network of --workdir beside it.",
)

# Where.
_DIRECTORY = flags.DEFINE_string(
    "directory", None, "Folder of the versions.", required=True
)

_BATCHES = (1, 32)  # timed


def main(argv):
    del argv
    # TensorFlow describes the files it writes, page after page, and warns of
    # the age of the loader that servers use.
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("ERROR")
    with plain_errors.told():
        _export()


def _export():
    sources = (_WORKDIR.value, _MODEL.value, _WEIGHTS.value)
    if sum(source is not None for source in sources) != 1:
        raise ValueError("give one of --workdir, --model and --weights")
    run = open_run(_WORKDIR.value) if _WORKDIR.value else None
    recipe = _recipe(run)
    stage = trained.stage_of(run, _STAGE.value) if run else None
    version = export.export_saved_model(
        _load(run, stage, recipe),
        _DIRECTORY.value,
        recipe,
        forced=_FORCED.value,
        class_names=_class_names(run),
        top=_TOP.value,
        precision=_PRECISION.value,
        warmup_batches=_warmup_batches(),
        card=trained.card(run, stage) if run else None,
    )
    print(version)
    if _BENCHMARK.value:
        _benchmark(run, version, recipe)


def _recipe(run):
    if _PREPROCESSING.value:
        return data.preprocessing_of(
            _PREPROCESSING.value, _IMAGE_SIZE.value, _NORMALIZATION.value
        )
    if run is None:
        raise ValueError(
            "--model and --weights need --preprocessing, a data set's name"
        )
    return run.preprocessing()


def _load(run, stage, recipe):
    if run is not None:
        return run.model(stage)
    path = _MODEL.value or _WEIGHTS.value
    flag = "model" if _MODEL.value else "weights"
    if not os.path.exists(path):
        raise ValueError(f"--{flag}={path} does not exist")
    if _MODEL.value:
        return keras.saving.load_model(path)
    model = _build(recipe)
    model.load_weights(path)
    return model


def _build(recipe):
    if _DEPTH.value is None or _GATE.value is None:
        raise ValueError("--weights needs --depth and --gate (none: dense)")
    family = "imagenet" if recipe.augmentation == "resized_crop" else "cifar"
    gated = _GATE.value != "none"
    make = models.NETWORKS[family][gated]
    arguments = {"gate": _GATE.value} if gated else {}
    classes = _NUM_CLASSES.value or recipe.num_classes
    return make(depth=_DEPTH.value, num_classes=classes, **arguments)


def _warmup_batches():
    try:
        return [int(batch) for batch in _WARMUP_BATCHES.value]
    except ValueError as error:
        raise ValueError(
            "--warmup_batches must be ints with commas between them. "
            f"Received: {','.join(_WARMUP_BATCHES.value)}"
        ) from error


def _class_names(run):
    if _CLASS_NAMES.value:
        with open(_CLASS_NAMES.value) as file:
            return file.read().splitlines()
    return trained.class_names(run) if run else ()


def _benchmark(run, version, recipe):
    """Prints milliseconds per image, networks taking turns."""
    paths = {"exported": version}
    with tempfile.TemporaryDirectory() as folder:
        if run is not None and "base" in run.summaries:
            paths["dense"] = export.export_saved_model(
                run.model("base"), folder, recipe, precision=_PRECISION.value
            )
        found = timing.milliseconds(paths, _pixels(run, recipe), _BATCHES)
    for batch, taken in found.items():
        line = [f"{taken[name]:.3f} ms {name}" for name in taken]
        if "dense" in taken:
            ratio = taken["exported"] / taken["dense"]
            line.append(f"{ratio:.2f} times dense")
        print(f"batch {batch}, per image: {', '.join(line)}")


def _pixels(run, recipe):
    """A few of the split's images, or noise without a split."""
    if run is not None:
        images, _ = next(iter(run.images()))
        return probes.pixels(images, recipe)
    print("timed on noise: --workdir would give images")
    size = recipe.size or 32
    shape = (4 * max(_BATCHES), size, size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


if __name__ == "__main__":
    app.run(main)
