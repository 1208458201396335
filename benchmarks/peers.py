"""The dense network in other runtimes: ONNX Runtime and OpenVINO.

Both get the dense SavedModel, with its normalisation of pixels, and for each
batch the shape of the images, which lets them optimise most.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np

PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnx", "tf2onnx"),
    "openvino": ("openvino",),
}
# ONNX Runtime has no bfloat16 on processors.
PRECISIONS = {
    "onnxruntime": ("float32",),
    "openvino": ("float32", "bfloat16"),
}
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


def convert(peer: str, dense: str) -> str:
    """Writes a peer's form of a SavedModel beside it, once.

    Args:
        peer: `"onnxruntime"` or `"openvino"`.
        dense: String, folder of the dense float32 SavedModel.

    Returns:
        String, path of the converted network.

    Raises:
        RuntimeError: If the conversion fails.
    """
    suffix = {"onnxruntime": "onnx", "openvino": "xml"}[peer]
    path = f"{os.path.dirname(dense)}.{suffix}"
    if os.path.exists(path):
        return path
    if peer == "openvino":
        openvino = _import_openvino()
        model = openvino.convert_model(dense)
        # With all outputs, compiling it can end the process.
        logits = model.output("logits").get_node()
        model = openvino.Model([logits], model.get_parameters())
        openvino.save_model(model, path, compress_to_fp16=False)
        return path
    command = [sys.executable, "-m", "tf2onnx.convert", "--opset=18"]
    command += ["--saved-model", dense, "--output", f"{path}.writing"]
    command += ["--signature_def", "serving_default"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"tf2onnx: {done.stderr.strip().splitlines()[-1:]}")
    os.rename(f"{path}.writing", path)
    return path


def load(
    peer: str, path: str, shape: tuple[int, ...], threads: int, precision: str
) -> Callable[[np.ndarray], dict]:
    """A function from uint8 images of one shape to a dict of `logits`.

    Args:
        peer: `"onnxruntime"` or `"openvino"`.
        path: String, what `convert` returned.
        shape: Tuple `(batch, height, width, 3)`.
        threads: Positive int.
        precision: One of the peer's `PRECISIONS`.

    Returns:
        The function.
    """
    loading = {"onnxruntime": _onnxruntime, "openvino": _openvino}[peer]
    return loading(path, shape, threads, precision)


def _onnxruntime(path, shape, threads, precision):
    import onnx
    import onnxruntime
    from onnxruntime.tools.onnx_model_utils import make_input_shape_fixed

    model = onnx.load(path)
    with contextlib.redirect_stdout(None):
        make_input_shape_fixed(model.graph, "images", shape)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait for the next call would slow down whose turn it is.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"]
    )
    names = ["logits"]
    return lambda images: dict(
        zip(names, session.run(names, {"images": images}))
    )


def _openvino(path, shape, threads, precision):
    openvino = _import_openvino()
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({"images": list(shape)})
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        # Left alone it takes bfloat16 where the processor has it.
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
    }
    compiled = core.compile_model(model, "CPU", settings)
    return lambda images: {"logits": compiled({"images": images})[0]}


def _import_openvino():
    # It would report every step of a conversion to its makers, each in a new
    # process; without this module it does not.
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino

    return openvino
