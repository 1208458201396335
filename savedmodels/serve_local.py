"""Answers TF Serving's predict API in one process, without TF Serving.

    python savedmodels/serve_local.py --model_base_path=served

For trying things out on a machine that has no TF Serving; production wants TF
Serving.  The flags are those of `tensorflow_model_server`.
"""

import os
import signal
import threading

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import plain_errors
import tensorflow as tf
from absl import app
from absl import flags
from absl import logging

_BASE_PATH = flags.DEFINE_string(
    "model_base_path", None, "Folder of the versions.", required=True
)
_NAME = flags.DEFINE_string(
    "model_name", "skipnet", "What clients call the model."
)
_POLL = flags.DEFINE_float(
    "file_system_poll_wait_seconds",
    1.0,
    "Seconds between looks for a newer version.",
    lower_bound=0.01,
)

_HOST = flags.DEFINE_string("host", "localhost", "Address to listen at.")
_REST_PORT = flags.DEFINE_integer(
    "rest_api_port", 8501, "Port of the REST API; 0 takes a free one."
)
_GRPC_PORT = flags.DEFINE_integer(
    "port", 8500, "Port of the gRPC API; 0 takes a free one."
)
_MAX_MEBIBYTES = flags.DEFINE_integer(
    "max_request_mebibytes", 64, "Size of the largest request.", lower_bound=1
)
_THREADS = flags.DEFINE_integer(
    "grpc_threads", 16, "gRPC requests computed at a time.", lower_bound=1
)

_GRACE = 5.0  # seconds for what is being computed when the server stops


def main(argv):
    del argv
    # The loader of sessions announces what it reads, and its own age.
    tf.get_logger().setLevel("ERROR")
    logging.set_verbosity(logging.INFO)
    with plain_errors.told():
        _serve()


def _serve():
    try:
        import grpc_service
        import predictor
        import rest
    except ImportError as error:
        raise ImportError(
            f"pip install 'skipnet_tf[serving]' is missing ({error})"
        ) from error
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    max_bytes = _MAX_MEBIBYTES.value << 20
    try:
        model = predictor.Model(_NAME.value, _BASE_PATH.value)
    except FileNotFoundError as error:
        raise ValueError(
            f"{error}; savedmodels/export.py --directory="
            f"{_BASE_PATH.value} writes one"
        ) from error
    model.watch(_POLL.value)
    host, port = _HOST.value, _REST_PORT.value
    try:
        http = rest.Server(model, host, port, max_bytes)
        port = _GRPC_PORT.value
        grpc, port = grpc_service.serve(
            model, host, port, max_bytes, _THREADS.value
        )
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"cannot listen at {host}:{port}; choose other ports with "
            f"--rest_api_port and --port ({error})"
        ) from error
    print(
        f"{_NAME.value}: http://{host}:{http.port} grpc://{host}:{port}",
        flush=True,
    )
    stop.wait()
    http.stop()
    grpc.stop(_GRACE).wait()
    model.close()
    # Threads of gRPC and TensorFlow outlive this; if the interpreter ends
    # under them, they abort the process.
    os._exit(0)


if __name__ == "__main__":
    app.run(main)
