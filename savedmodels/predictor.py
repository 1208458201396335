"""The newest version of a SavedModel, loaded and run as TF Serving does.

A request is the name of a signature and a dictionary of arrays, an answer a
dictionary of arrays.  What goes wrong is a `tf.errors.OpError` with the code
that TF Serving would answer.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_status_pb2

from skipnet_tf import serving

DEFAULT_SIGNATURE = "serving_default"

_Status = get_model_status_pb2.ModelVersionStatus


class Version:
    """One loaded SavedModel.

    Args:
        path: String, the folder that holds `saved_model.pb`, named by its
            number.

    Attributes:
        number: Int, the version.
        signatures: Dictionary of `SignatureDef`.
    """

    def __init__(self, path: str):
        self.number = int(os.path.basename(path))
        config = tf.compat.v1.ConfigProto()
        # Two versions share an accelerator while one replaces the other.
        config.gpu_options.allow_growth = True
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph, config=config)
        try:
            loaded = tf.compat.v1.saved_model.load(
                self._session, ["serve"], path
            )
        except BaseException:
            self.close()
            raise
        self.signatures = loaded.signature_def
        graph.finalize()
        try:
            self._warm_up(path)
        except BaseException:
            self.close()
            raise

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        wanted: Sequence[str] = (),
        timeout: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Computes the outputs of a signature.

        Args:
            signature_name: String, `""` stands for `serving_default`.
            inputs: Dictionary of arrays, strings as objects.
            wanted: Names of the outputs to compute. Defaults to `()`, all.
            timeout: Seconds, `None` waits for ever.

        Returns:
            Dictionary of arrays.

        Raises:
            tf.errors.OpError: If the request or its computation fails.
        """
        signature = self.signature(signature_name)
        _check_inputs(signature, inputs)
        unknown = sorted(set(wanted) - set(signature.outputs))
        if unknown:
            raise invalid(
                f"output tensor alias not found in signature: {unknown[0]} "
                f"Outputs expected to be in the set {_names(signature.outputs)}"
            )
        options = tf.compat.v1.RunOptions()
        if timeout is not None:
            options.timeout_in_ms = max(1, int(1000 * timeout))
        return self._session.run(
            {k: signature.outputs[k].name for k in wanted or signature.outputs},
            {signature.inputs[k].name: array for k, array in inputs.items()},
            options=options,
        )

    def _warm_up(self, path):
        # A request that does not fit keeps the version from being served.
        for signature_name, inputs in serving.read_requests(path):
            self.run(signature_name, inputs)

    def signature(self, name: str) -> meta_graph_pb2.SignatureDef:
        """Returns a signature, `serving_default` for `""`.

        Raises:
            tf.errors.FailedPreconditionError: If there is no such signature.
        """
        name = name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            raise tf.errors.FailedPreconditionError(
                None, None, f'Serving signature key "{name}" not found.'
            )
        return self.signatures[name]

    def close(self) -> None:
        self._session.close()


class Model:
    """A folder of versions, of which the newest is served.

    Folders whose names are not integers are ignored, as by TF Serving: an
    export is written under such a name and then renamed.

    Args:
        name: String, what clients call the model.
        folder: String, the folder of the versions.

    Raises:
        FileNotFoundError: If the folder holds no version.
        Exception: Whatever loading the first version raises.
    """

    def __init__(self, name: str, folder: str):
        self.name = name
        self._folder = folder
        self._lock = threading.Lock()
        self._users = {}  # requests being computed, by version
        self._states = {}
        self._stopped = threading.Event()
        newest = self._newest()
        if newest is None:
            raise FileNotFoundError(f"{folder} holds no version")
        self._served = Version(newest)
        self._note(self._served.number, _Status.AVAILABLE)

    def watch(self, seconds: float) -> None:
        """Looks for a newer version in a thread, now and then, until closed."""

        def poll():
            while not self._stopped.wait(seconds):
                self.refresh()

        threading.Thread(target=poll, daemon=True).start()

    def refresh(self) -> None:
        """Serves the newest version if that is not the one being served.

        The old version answers until the new one is loaded, and goes on
        answering if the new one cannot be loaded; that is tried again the
        next time, because somebody may still be copying it.
        """
        path = self._newest()
        if path is None or int(os.path.basename(path)) == self._served.number:
            return
        number = int(os.path.basename(path))
        try:
            loaded = Version(path)
        except Exception as error:  # whatever is wrong with the files
            if number not in self._states:
                logging.error("version %d does not load: %s", number, error)
            self._note(number, _Status.END, error)
            return
        with self._lock:
            old, self._served = self._served, loaded
            idle = old not in self._users
        self._note(number, _Status.AVAILABLE)
        self._note(old.number, _Status.END)
        logging.info("version %d replaces %d", number, old.number)
        if idle:
            old.close()

    @contextlib.contextmanager
    def use(self, number: int | None = None) -> Iterator[Version]:
        """Yields the version being served, which stays open meanwhile.

        Args:
            number: Int, the version asked for. Defaults to the newest.

        Raises:
            tf.errors.NotFoundError: If that one is not being served.
        """
        with self._lock:
            version = self._served
            if number not in (None, version.number):
                raise _not_found(
                    "Servable not found for request: "
                    f"Specific({self.name}, {number})"
                )
            self._users[version] = self._users.get(version, 0) + 1
        try:
            yield version
        finally:
            with self._lock:
                self._users[version] -= 1
                if not self._users[version]:
                    del self._users[version]
                unused = version not in self._users
            # Replaced meanwhile, and never handed out again.
            if unused and version is not self._served:
                version.close()

    def status(
        self, number: int | None = None
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the state of one version or of all, newest first."""
        with self._lock:
            states = [
                state
                for version, state in sorted(self._states.items(), reverse=True)
                if number in (None, version)
            ]
        if not states:
            raise _not_found(
                f"Could not find version {number} of model {self.name}"
            )
        return get_model_status_pb2.GetModelStatusResponse(
            model_version_status=states
        )

    def close(self) -> None:
        """Stops watching; what is being computed ends undisturbed."""
        self._stopped.set()

    def _newest(self):
        try:
            names = os.listdir(self._folder)
        except OSError:
            names = ()
        numbers = [n for n in names if n.isascii() and n.isdecimal()]
        newest = max(numbers, key=int, default=None)
        return newest and os.path.join(self._folder, newest)

    def _note(self, number, state, error=None):
        status = _Status(version=number, state=state)
        status.status.SetInParent()  # or JSON would leave out an OK
        if error is not None:
            code = getattr(error, "error_code", tf.errors.UNKNOWN)
            status.status.error_code = code
            status.status.error_message = str(error)
        with self._lock:
            self._states[number] = status


def find(model: Model, name: str) -> Model:
    """Returns the model if that is its name.

    Raises:
        tf.errors.NotFoundError: If it is not.
    """
    if name != model.name:
        raise _not_found(f"Servable not found for request: Latest({name})")
    return model


def explain(error: tf.errors.OpError) -> str:
    """Returns the message of an error, without the nodes of the graph."""
    # Nodes follow the message on lines of their own.
    message = error.message.removeprefix("Graph execution error:\n\n")
    return message.split("\n\t [[")[0]


def invalid(message: str) -> tf.errors.InvalidArgumentError:
    """Returns the error for a request that can never be answered."""
    return tf.errors.InvalidArgumentError(None, None, message)


def _not_found(message):
    return tf.errors.NotFoundError(None, None, message)


def _check_inputs(signature, inputs):
    # A session in Python would cast what a session in C++ refuses.
    extra = set(inputs) - set(signature.inputs)
    missing = set(signature.inputs) - set(inputs)
    if extra or missing:
        raise invalid(
            f"input size does not match signature: {len(inputs)}!="
            f"{len(signature.inputs)} len({_names(inputs)}) != "
            f"len({_names(signature.inputs)}). Sent extra: {_names(extra)}. "
            f"Missing but required: {_names(missing)}."
        )
    for name, array in inputs.items():
        info = signature.inputs[name]
        expected, got = tf.as_dtype(info.dtype), tf.as_dtype(array.dtype)
        if got != expected:
            raise invalid(
                f"input {name} expects {expected.name} but {got.name} is "
                "provided"
            )
        shape = tf.TensorShape(info.tensor_shape)
        if not shape.is_compatible_with(array.shape):
            raise invalid(
                f"input {name} expects the shape {shape} but {array.shape} is "
                "provided"
            )


def _names(names):
    return "{" + ",".join(sorted(names)) + "}"
