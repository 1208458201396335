"""Exports a trained network for TF Serving.

    python savedmodels/export.py --workdir=runs/digits --directory=served
    python savedmodels/export.py --model=skipnet.keras \
        --preprocessing=cifar10 --directory=served
"""

import os
import statistics
import sys
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from absl import logging

from skipnet_tf import analysis
from skipnet_tf import data
from skipnet_tf import evaluation
from skipnet_tf import export

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Work directory of a trainer; this or --model."
)
_STAGE = flags.DEFINE_string(
    "stage", None, "Stage of --workdir. Defaults to the last finished one."
)
_MODEL = flags.DEFINE_string("model", None, "Network file, .keras.")
_PREPROCESSING = flags.DEFINE_string(
    "preprocessing", None, "Data set. Defaults to that of --workdir."
)
_FORCED = flags.DEFINE_bool(
    "forced", False, "Add a signature that takes the decisions as an input."
)
_DIRECTORY = flags.DEFINE_string(
    "directory", None, "Folder of the versions.", required=True
)
_BENCHMARK = flags.DEFINE_bool(
    "benchmark",
    False,
    "Time the export, and the dense network of --workdir beside it.",
)

_BATCHES = (1, 32)
_CALLS = 50  # of each network and batch, medians are printed
_WARM_UP = 5  # calls


def main(argv):
    del argv
    # TensorFlow describes the files it writes, page after page.
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("WARNING")
    try:
        _export()
    except (
        ValueError,
        ImportError,
        RuntimeError,
        OSError,
        tf.errors.OpError,
    ) as error:
        sys.exit(f"error: {error}")


def _export():
    if (_WORKDIR.value is None) == (_MODEL.value is None):
        raise ValueError("give either --workdir or --model")
    run = evaluation.open_run(_WORKDIR.value) if _WORKDIR.value else None
    name = _PREPROCESSING.value or (run and run.dataset)
    if not name:
        raise ValueError("--model needs --preprocessing, a data set's name")
    recipe = data.preprocessing_of(name)
    version = export.export_saved_model(
        _load(run),
        _DIRECTORY.value,
        recipe,
        forced=_FORCED.value,
        class_names=_class_names(run),
    )
    print(version)
    if _BENCHMARK.value:
        _benchmark(run, version, recipe)


def _load(run):
    if run is None:
        if not os.path.exists(_MODEL.value):
            raise ValueError(f"--model={_MODEL.value} does not exist")
        return keras.saving.load_model(_MODEL.value)
    stage = _STAGE.value or list(run.summaries)[-1]
    if stage not in run.summaries:
        raise ValueError(
            f"--stage={stage} is not finished in --workdir={run.workdir}, "
            f"which has {', '.join(run.summaries)}"
        )
    return run.model(stage)


def _class_names(run):
    if run is None:
        return ()
    try:
        return run.describe().class_names
    except (ValueError, ImportError) as error:
        print(f"class names are left out: {error}", file=sys.stderr)
        return ()


def _benchmark(run, version, recipe):
    """Prints milliseconds per image, networks taking turns."""
    paths = {"exported": version}
    with tempfile.TemporaryDirectory() as folder:
        if run is not None and "base" in run.summaries:
            paths["dense"] = export.export_saved_model(
                run.model("base"), folder, recipe
            )
        networks = {
            name: tf.saved_model.load(path).signatures["serving_default"]
            for name, path in paths.items()
        }
        for batch in _BATCHES:
            batches = _pixels(run, recipe, batch)
            taken = _times(networks, batches)
            line = [f"{taken[name] / batch:.3f} ms {name}" for name in taken]
            if "dense" in taken:
                ratio = taken["exported"] / taken["dense"]
                line.append(f"{ratio:.2f} times dense")
            print(f"batch {batch}, per image: {', '.join(line)}")


def _pixels(run, recipe, batch):
    """A few batches of the split's images, or of noise without a split."""
    if run is not None:
        images, _ = next(iter(run.images()))
        images = analysis.pixels(images, recipe)
    else:
        print("timed on noise: --workdir would give images")
        size = recipe.size or 32
        shape = (4 * max(_BATCHES), size, size, 3)
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    starts = range(0, max(1, len(images) - batch + 1), batch)
    return [tf.constant(images[start : start + batch]) for start in starts]


def _times(networks, batches):
    """Median milliseconds of a call of each network."""
    taken = {name: [] for name in networks}
    for call in range(_WARM_UP + _CALLS):
        images = batches[call % len(batches)]
        for name, network in networks.items():
            start = time.perf_counter()
            network(images=images)["logits"].numpy()
            taken[name].append(1e3 * (time.perf_counter() - start))
    return {
        name: statistics.median(times[_WARM_UP:])
        for name, times in taken.items()
    }


if __name__ == "__main__":
    app.run(main)
