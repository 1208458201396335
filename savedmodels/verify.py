"""Checks SavedModels as an operator would before serving them.

    python savedmodels/verify.py served/1 ...

Prints what holds. What does not hold is an error, and the exit status 1.
"""

import sys

import tensorflow as tf
from absl import app
from absl import logging

import skipnet_tf


def main(argv):
    # TensorFlow warns of the age of the loader that servers use.
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("ERROR")
    if len(argv) < 2:
        sys.exit("error: give the folder of a version, such as served/1")
    failed = False
    for path in argv[1:]:
        try:
            found = skipnet_tf.verify_saved_model(path)
        except (ValueError, RuntimeError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
            continue
        print(f"{path} is fit to be served")
        for line in found:
            print(f"  {line}")
    sys.exit(failed)


if __name__ == "__main__":
    app.run(main)
