"""Mistakes of a script's user end in one line, not a traceback."""

import contextlib
import sys
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Ends the process with the sentence of what went wrong within."""
    try:
        yield
    except (
        ValueError,
        ImportError,
        RuntimeError,
        OSError,
        tf.errors.OpError,
    ) as error:
        sys.exit(f"error: {error}")
