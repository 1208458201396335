"""PyTorch's state dicts: files, and one name for each entry.

`canonical` turns the names that other implementations use into those of
torchvision and of the published SkipNets, so that whoever reads on needs to
know one name for each thing.
"""

import importlib.util
import os
import pickle
import re
from collections.abc import Mapping

import numpy as np

from skipnet_tf.layers import EPSILON

# With epsilon exactly 1 in float32: batch normalisation by it, with scale 1
# and mean and shift 0, passes on what it gets, bit for bit.
IDENTITY_VARIANCE = np.float32(1) - np.float32(EPSILON)

SUFFIXES = (".pth", ".pt", ".th", ".tar", ".safetensors")

# Training scripts save the weights under one of these, beside an epoch.
_WRAPPERS = ("state_dict", "model", "net")
_RENAMED = (
    (r"^module\.", ""),  # of torch.nn.DataParallel
    (r"^linear\.", "fc."),
    (r"\.shortcut\.", ".downsample."),
)


def read_state_dict(path: str) -> dict[str, np.ndarray]:
    """Reads a file of PyTorch weights.

    PyTorch's own files need `torch`, and nothing in them is executed;
    `.safetensors` needs `safetensors`. What training scripts put around the
    weights, `{"state_dict": ...}`, is taken off.

    Args:
        path: String, a `.pth`, `.pt`, `.th`, `.tar` or `.safetensors` file.

    Returns:
        Dict from entry name to float32 array, in PyTorch's layouts.

    Raises:
        ValueError: If the file is missing, has another suffix or holds
            anything but weights.
        ImportError: If the package that reads it is not installed.
    """
    if not path.endswith(SUFFIXES) or not os.path.exists(path):
        raise ValueError(
            f"`path` must be an existing file, one of {SUFFIXES}. "
            f"Received: path={path}"
        )
    read = _safetensors if path.endswith(".safetensors") else _torch_file
    try:
        return read(path)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            "`path` must hold a state dict, which is tensors alone (save "
            f"network.state_dict(), not the network). Received: path={path}, "
            f"which cannot be read: {str(error).splitlines()[0]}"
        ) from error


def _safetensors(path):
    _require("safetensors", path)
    import safetensors
    from safetensors import numpy

    try:
        given = numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise RuntimeError(error) from error
    return {name: value.astype("float32") for name, value in given.items()}


def _torch_file(path):
    _require("torch", path)
    import torch

    given = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in _WRAPPERS:
        if isinstance(given, Mapping) and isinstance(
            given.get(wrapper), Mapping
        ):
            given = given[wrapper]
    if not isinstance(given, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in given.values()
    ):
        raise RuntimeError("it holds more than tensors with names")
    return {name: value.float().numpy() for name, value in given.items()}


def _require(package, path):
    if importlib.util.find_spec(package) is None:
        raise ImportError(
            f"{path} needs {package} to be read: "
            "pip install skipnet_tf[interop]"
        )


def canonical(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The entries under torchvision's or the published SkipNets' names.

    A `module.` prefix and `num_batches_tracked` are dropped; `linear` becomes
    `fc` and `shortcut` `downsample`. Of the two copies of a projection that
    published SkipNets have, `downsample` wins over `_ds`. A CIFAR network
    without projections gets those that do what its shortcuts do.

    Args:
        state_dict: Mapping from entry name to array, in PyTorch's layouts.

    Returns:
        Dict from entry name to array.
    """
    given = {}
    for name, value in state_dict.items():
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        if not name.endswith("num_batches_tracked"):
            given[name] = np.asarray(value)
    for name in [n for n in given if re.match(r"group\d+_ds\d+\.", n)]:
        group, rest = re.match(r"(group\d+)_ds\d+\.(.*)", name).groups()
        value = given.pop(name)
        given.setdefault(f"{group}_layer0.downsample.{rest}", value)
    if not any(".downsample." in name for name in given):
        _add_projections(given)
    return given


def _add_projections(given):
    """Option A of He et al. (2016) as projections, where a CIFAR net has it.

    Every second pixel, and channels of zeros on both sides, a quarter of the
    new width each: a 1x1 convolution of zeros and ones with stride 2.
    """
    for name in [
        n for n in given if re.fullmatch(r"layer\d+\.0\.conv1\.weight", n)
    ]:
        width, channels, *kernel = given[name].shape
        # Doubled by 3x3 kernels behind a small stem: not a bottleneck, and
        # not an ImageNet network that lost its projections.
        if kernel != [3, 3] or width != 2 * channels:
            continue
        prefix = name.removesuffix("conv1.weight") + "downsample"
        projection = np.zeros((width, channels, 1, 1), "float32")
        inputs = np.arange(channels)
        projection[width // 4 + inputs, inputs] = 1
        given[f"{prefix}.0.weight"] = projection
        given[f"{prefix}.1.weight"] = np.ones(width, "float32")
        given[f"{prefix}.1.bias"] = np.zeros(width, "float32")
        given[f"{prefix}.1.running_mean"] = np.zeros(width, "float32")
        given[f"{prefix}.1.running_var"] = np.full(width, IDENTITY_VARIANCE)


def num_classes(state_dict: Mapping[str, np.ndarray]) -> int:
    """Number of classes that the classifier among canonical entries tells.

    Args:
        state_dict: What `canonical` returned.

    Returns:
        Int, rows of `fc.weight`.

    Raises:
        ValueError: If there is no such entry.
    """
    if "fc.weight" not in state_dict:
        raise ValueError(
            "`state_dict` must have a classifier, fc.weight or linear.weight. "
            f"Received: entries {', '.join(list(state_dict)[-3:])} at its end"
        )
    return len(state_dict["fc.weight"])
