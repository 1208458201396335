"""What a network file says of the stage that it was trained in."""

import json
import zipfile

import keras

import skipnet_tf


def price(path: str) -> float:
    """The price that a stage ended with, adapted to its target.

    Args:
        path: String, its `.keras` file.

    Returns:
        Float.

    Raises:
        ValueError: If the price followed a schedule.
    """
    alpha = _saved_stage(path).get("config", {}).get("alpha")
    if not isinstance(alpha, float):
        raise ValueError(
            "--target_macs must have been given to gates too, or to the "
            "network in --imitate, for hrl to go on at its price. "
            f"Received: {path}, trained without"
        )
    return alpha


def gated_network(path: str) -> skipnet_tf.SkipNet:
    """The network in a `.keras` file, of any kind of gates.

    Args:
        path: String.

    Returns:
        A `SkipNet` with its weights and its threshold.

    Raises:
        ValueError: If there is none.
    """
    try:
        network = keras.saving.load_model(path, compile=False)
    except (ValueError, KeyError, TypeError, OSError) as error:
        network = error
    if not isinstance(network, skipnet_tf.SkipNet):
        raise ValueError(
            "--imitate must be a .keras file of a network with gates. "
            f"Received: {path}, {network!r}"
        )
    return network


def taught_in(path: str) -> str | None:
    """In lower case, the class of the stage in a `.keras` file; or `None`."""
    return _saved_stage(path).get("class_name", "").lower() or None


def _saved_stage(path):
    """The configuration of the stage in a `.keras` file; empty if none.

    Or if the file is not there yet, where a stage is only checked; of one that
    is broken, whoever loads its weights tells.
    """
    if not path.endswith(".keras") or not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as file:
        config = json.loads(file.read("config.json"))
    return config.get("compile_config", {}).get("stage") or {}
