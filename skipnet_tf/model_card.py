"""What a SavedModel is: facts for those who run it and did not train it."""

import contextlib
import datetime
import platform
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from skipnet_tf import flops
from skipnet_tf.preprocessing import Preprocessing
from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet
from skipnet_tf.version import VERSION


def facts(
    model: ResNet | SkipNet,
    recipe: Preprocessing,
    precision: str,
    size: int,
    further: Mapping,
) -> dict:
    """The content of `model_card.json`.

    Args:
        model: The network that is exported.
        recipe: `Preprocessing` of its images.
        precision: String, see `export_saved_model`.
        size: Int, height and width in pixels at which operations are counted.
        further: Mapping of strings to JSON values: data set, accuracy, flags.

    Returns:
        Dict of JSON values.
    """
    config = model.get_config()
    count = flops.count(model, (size, size, 3))
    network = {"class": type(model).__name__, **config}
    network.pop("dtype")
    return {
        "network": network,
        "precision": precision,
        "parameters": sum(int(np.prod(w.shape)) for w in model.weights),
        "preprocessing": {
            "name": recipe.name,
            "mean": recipe.mean,
            "std": recipe.std,
            "size": recipe.size,
        },
        "multiply_adds": {
            "image_size": [size, size],
            "always": count.fixed,
            "blocks": count.blocks.tolist(),
            "gates": count.gates.tolist(),
            "dense_network": count.dense,
            "all_blocks_and_gates": count.total,
        },
        **further,
        "created": datetime.datetime.now(datetime.UTC).isoformat(
            "T", "seconds"
        ),
        "versions": {
            "skipnet_tf": VERSION,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
    }


def processor() -> str:
    """The processor in words, for those who read timings elsewhere."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
    return name
