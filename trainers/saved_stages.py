"""What a network file says of the stage that it was trained in."""

import json
import os
import zipfile


def price(path: str) -> float:
    """The price that a stage ended with, adapted to its target.

    Args:
        path: String, its `.keras` file.

    Returns:
        Float.

    Raises:
        ValueError: If the price followed a schedule.
    """
    alpha = _saved_stage(path)["config"]["alpha"]
    if not isinstance(alpha, float):
        raise ValueError(
            "--target_macs must have been given to gates too, for hrl to go on "
            f"at its price. Received: {path}, trained without"
        )
    return alpha


def taught_in(path: str) -> str | None:
    """In lower case, the class of the stage in a `.keras` file; or `None`."""
    return _saved_stage(path).get("class_name", "").lower() or None


def _saved_stage(path):
    """The configuration of the stage in a `.keras` file; empty if none.

    Or if the file is not there yet, where a stage is only checked.
    """
    if not path.endswith(".keras") or not os.path.exists(path):
        return {}
    with zipfile.ZipFile(path) as file:
        config = json.loads(file.read("config.json"))
    return config.get("compile_config", {}).get("stage") or {}
