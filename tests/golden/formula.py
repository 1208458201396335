"""The weights and images behind the reference outputs in this folder.

Every weight is a function of its name and shape alone, so that no weight file
is needed: `weight(name, shape)` gives the array of one entry of the published
PyTorch checkpoints' state dict (PyTorch layouts: conv `(out, in, height,
width)`, linear `(out, in)`, LSTM gate order i, f, g, o, two LSTM biases).
"""

import zlib

import numpy as np


def weight(name, shape):
    """Float32 array of `shape` for the state-dict entry `name`."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_mean":
        return (0.1 * random.standard_normal(shape)).astype("float32")
    if leaf == "running_var":
        return random.uniform(0.5, 1.5, shape).astype("float32")
    if len(shape) == 1 and leaf == "weight":  # batch-norm scale
        value = random.uniform(0.5, 1.0, shape).astype("float32")
        last_of_branch = (
            ".bn2." in name or ".bn3." in name
        ) and "_layer" in name
        return (value * 0.3).astype("float32") if last_of_branch else value
    if len(shape) == 1:  # every bias
        return (0.1 * random.standard_normal(shape)).astype("float32")
    fan_in = int(np.prod(shape[1:]))
    gain = 2.0 if "control." in name or "_gate" in name else 1.0
    value = gain * np.sqrt(2.0 / fan_in) * random.standard_normal(shape)
    return value.astype("float32")


def images(count, size, seed):
    """Normalised float32 images `(count, size, size, 3)`."""
    random = np.random.default_rng(seed)
    low = random.standard_normal((count, size // 4, size // 4, 3))
    value = low.repeat(4, 1).repeat(4, 2) * random.uniform(
        0.2, 3, (count, 1, 1, 1)
    ) + random.uniform(-2, 2, (count, 1, 1, 1))
    return value.astype("float32")
