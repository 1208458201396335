"""Puts a trained network where others find it, with all that is known of it.

    python savedmodels/publish.py --workdir=runs/cifar10_38 \
        --directory=savedmodels/cifar10_skipnet38_rnn

writes `<directory>/<version>/`: the SavedModel of `export.py`, the flags and
logs it was trained with, and `result.json`: accuracy and multiply-adds of
every stage, and of the best choice of blocks that is the same for all images.
README.md here describes the folder.
"""

import dataclasses
import os
import shutil
import tempfile

import keras
import plain_errors
import tensorflow as tf
import timing
import trained
from absl import app
from absl import flags
from absl import logging

from skipnet_tf import evaluation
from skipnet_tf import experiment
from skipnet_tf import export
from skipnet_tf import flops
from skipnet_tf import frozen
from skipnet_tf import model_card
from skipnet_tf import static_choice
from skipnet_tf import versions
from skipnet_tf.analysis import probes
from skipnet_tf.resnet import ResNet
from skipnet_tf.runs import open_run
from skipnet_tf.skipnet import SkipNet

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Work directory of a trainer.", required=True
)
_STAGE = flags.DEFINE_string(
    "stage", None, "Stage to publish. Defaults to the last finished one."
)
_DIRECTORY = flags.DEFINE_string(
    "directory", None, "Folder of the versions.", required=True
)
_DENSE = flags.DEFINE_string(
    "dense",
    None,
    "Dense network to compare with, .keras. Defaults to the stage base.",
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where the data are now. Defaults to where they were."
)
_TEST = flags.DEFINE_string(
    "test", None, "Test split, for a run that was trained without one."
)
_THRESHOLD = flags.DEFINE_float(
    "threshold",
    None,
    "Probability from which on a block runs, to be chosen on validation "
    "images. Not given: the network's own.",
    lower_bound=0.0,
    upper_bound=1.0,
)
_STATIC_IMAGES = flags.DEFINE_integer(
    "static_images",
    2000,
    "Validation images that the search for the best static choice of blocks "
    "uses; 0: no such search.",
    lower_bound=0,
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    frozen.PRECISIONS,
    "Of the convolutions; gates and classifier are float32 in any case.",
)
_BENCHMARK = flags.DEFINE_bool(
    "benchmark", False, "Time it beside its dense network; wants a quiet time."
)

_BATCHES = (1, 32, 128)  # timed
_CALIBRATION = 20  # batches


def main(argv):
    del argv
    # TensorFlow describes the files it writes, page after page, and warns of
    # the age of the loader that servers use.
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("ERROR")
    with plain_errors.told():
        print(_publish())


def _publish():
    run = open_run(_WORKDIR.value)
    run = dataclasses.replace(run, data_dir=_DATA_DIR.value or run.data_dir)
    stage = trained.stage_of(run, _STAGE.value)
    dense = _dense(run)
    model = run.model(stage)
    if _THRESHOLD.value is not None:
        model.threshold = _THRESHOLD.value
    # As they are served, however they were trained.
    model, dense = (
        export.as_served(network, _PRECISION.value)
        for network in (model, dense)
    )
    result = {"published_stage": stage, **trained.result(run)}
    splits = _splits(run, result)
    _add_test(run, result, splits)
    result["dense"] = {
        "network": os.path.basename(_DENSE.value or "base"),
        **{kind: _summary(dense, split) for kind, split in splits.items()},
    }
    published = {kind: _summary(model, split) for kind, split in splits.items()}
    result["published"] = published
    if isinstance(model, SkipNet):
        result["published"] |= {"threshold": model.threshold}
    if isinstance(model, SkipNet) and _STATIC_IMAGES.value:
        found = published["validation"]
        result["static_choice"] = _static(model, splits, found["macs"])
    card = trained.card(run, stage)
    card["results"] = {
        split.split: published[kind] for kind, split in splits.items()
    }
    with versions.new_version(_DIRECTORY.value) as (folder, version):
        _export(run, model, folder, card)
        if _BENCHMARK.value:
            images = next(iter(splits["validation"].images()))[0]
            result["timing"] = _timing(run, dense, folder, images)
        experiment.write_json(os.path.join(folder, "result.json"), result)
        _copy_training(run, os.path.join(folder, "training"))
    return version


def _dense(run):
    if _DENSE.value is None:
        if "base" not in run.summaries:
            raise ValueError(
                f"--workdir={run.workdir} has no finished stage base to "
                "compare with: give its file, --dense=model.keras"
            )
        return run.model("base")
    if not os.path.exists(_DENSE.value):
        raise ValueError(f"--dense={_DENSE.value} does not exist")
    dense = keras.saving.load_model(_DENSE.value, compile=False)
    if not isinstance(dense, ResNet):
        raise ValueError(
            "--dense must be a network without gates. "
            f"Received: a {type(dense).__name__} in {_DENSE.value}"
        )
    return dense


def _splits(run, result):
    """The run as it looks on its validation and test images."""
    if _TEST.value:
        result["test_split"] = _TEST.value
    found = {
        kind: dataclasses.replace(run, split=result[f"{kind}_split"])
        for kind in ("validation", "test")
        if result.get(f"{kind}_split")
    }
    for split in found.values():
        split.describe()  # before anything takes long
    return found


def _add_test(run, result, splits):
    """Measures what the run did not: its stages on --test."""
    if not _TEST.value:
        return
    for stage in run.summaries:
        summary = _summary(run.model(stage), splits["test"])
        result["stages"][stage]["test"] = summary


def _summary(model, split):
    routes = evaluation.collect(model, split.images())
    shape = tuple(split.describe().image_shape)
    return evaluation.summary(routes, flops.count(model, shape).dense)


def _static(model, splits, macs):
    """The policy against the best choice of blocks for all images."""
    validation = splits["validation"].images()
    # Statistics need no labels, and those of the choice's own images flatter
    # it, if anything.
    calibration = validation.take(_CALIBRATION)
    choice = static_choice.best_static_choice(
        model, validation, macs, _STATIC_IMAGES.value, calibration
    )
    kind = "test" if "test" in splits else "validation"
    return {
        "selected_on": splits["validation"].split,
        "selected": dataclasses.asdict(choice),
        "compared_on": splits[kind].split,
        **static_choice.compare(
            model, splits[kind].images(), choice, calibration
        ),
    }


def _export(run, model, folder, card):
    """Exports into `folder`, which is there and empty."""
    with tempfile.TemporaryDirectory() as scratch:
        exported = export.export_saved_model(
            model,
            scratch,
            run.preprocessing(),
            class_names=trained.class_names(run),
            precision=_PRECISION.value,
            card=card,
        )
        shutil.copytree(exported, folder, dirs_exist_ok=True)


def _timing(run, dense, folder, images):
    """Milliseconds per image, and what they were measured on."""
    recipe = run.preprocessing()
    with tempfile.TemporaryDirectory() as scratch:
        other = export.export_saved_model(
            dense, scratch, recipe, precision=_PRECISION.value
        )
        found = timing.milliseconds(
            {"published": folder, "dense": other},
            probes.pixels(images, recipe),
            _BATCHES,
        )
    devices = tf.config.list_physical_devices("GPU")
    details = map(tf.config.experimental.get_device_details, devices)
    names = [found.get("device_name", "GPU") for found in details]
    return {
        "hardware": ", ".join(
            [
                model_card.processor(),
                f"{os.cpu_count()} logical cores",
                *names,
            ]
        ),
        "milliseconds_per_image": {
            f"batch {batch}": {
                **taken,
                "of_dense": taken["published"] / taken["dense"],
            }
            for batch, taken in found.items()
        },
    }


def _copy_training(run, folder):
    """Flags, settings and logs, as they lie in the work directory."""
    names = ["flags.txt"]
    for stage in run.summaries:
        names += [f"{stage}/settings.json", f"{stage}/log.csv"]
    for name in names:
        source, target = (os.path.join(f, name) for f in (run.workdir, folder))
        if os.path.exists(source):  # a run of one's own code may lack some
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "w") as file:
                file.write(trained.portable(source))


if __name__ == "__main__":
    app.run(main)
