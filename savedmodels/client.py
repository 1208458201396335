"""Asks a server what is on images.

    python savedmodels/client.py cat.jpg dog.png
    python savedmodels/client.py --url=grpc://localhost:8500 --batch=8 folder
    cat cat.jpg | python savedmodels/client.py
    python savedmodels/client.py --signature=tunable --threshold=0.8 cat.png

Prints class, probability, blocks executed, multiply-adds and latency, retries
included, of each image; errors go to standard error, and the exit status says
whether there were any.
"""

import os
import sys

# gRPC brings TensorFlow along, and TensorFlow news of its start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import classification
import connection
from absl import app
from absl import flags

_URL = flags.DEFINE_string(
    "url", "http://localhost:8501", "Server: http, https or grpc."
)
_MODEL = flags.DEFINE_string("model", "skipnet", "Name of the model.")
_VERSION = flags.DEFINE_integer(
    "version", None, "Version. Defaults to the newest."
)

_SIGNATURE = flags.DEFINE_enum(
    "signature",
    "image_bytes",
    ["image_bytes", "serving_default", "tunable"],
    "image_bytes sends files, the others send pixels.",
)
_THRESHOLD = flags.DEFINE_float(
    "threshold", None, "Of --signature=tunable, from 0 to 1."
)
_PREPROCESSING = flags.DEFINE_string(
    "preprocessing",
    None,
    "Data set that says how pixels are resized. Defaults to as they are.",
)
_BATCH = flags.DEFINE_integer("batch", 1, "Images of a request.", lower_bound=1)
_DEADLINE = flags.DEFINE_float(
    "deadline", 30.0, "Seconds for a request, its retries included."
)


def main(argv):
    try:
        failed = _classify(argv[1:])
    except (ValueError, ImportError, connection.Failure) as error:
        sys.exit(f"error: {error}")
    if failed:
        sys.exit(f"error: images without an answer: {failed}")


def _classify(arguments):
    """Prints a line for each image and returns how many have no answer."""
    request = classification.Request(
        _SIGNATURE.value,
        _THRESHOLD.value,
        _PREPROCESSING.value,
        _DEADLINE.value,
    )
    images = classification.find_images(arguments)
    service = connection.connect(_URL.value, _MODEL.value, _VERSION.value)
    failed = 0
    for name, outcome in classification.classify(
        service, images, request, _BATCH.value
    ):
        if isinstance(outcome, Exception):
            failed += 1
            print(f"{name}: error: {outcome}", file=sys.stderr, flush=True)
        else:
            print(f"{name}: {outcome}", flush=True)
    return failed


if __name__ == "__main__":
    app.run(main)
