"""TF Serving's REST API, with the HTTP server of the standard library."""

import functools
import http.server
import json
import re
import sys
import threading
import urllib.parse

import predictor
import tensor_json
import tensorflow as tf
from absl import logging
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2

_PATH = re.compile(
    r"/v1/models/(?P<model>[^/:]+)(/versions/(?P<version>\d+))?"
    r"(?P<action>:predict|/metadata)?"
)
# Of the codes that a session or this server can give; others are 500.
_HTTP_STATUS = {
    tf.errors.INVALID_ARGUMENT: 400,
    tf.errors.FAILED_PRECONDITION: 400,
    tf.errors.OUT_OF_RANGE: 400,
    tf.errors.NOT_FOUND: 404,
    tf.errors.RESOURCE_EXHAUSTED: 429,
    tf.errors.UNIMPLEMENTED: 501,
    tf.errors.UNAVAILABLE: 503,
    tf.errors.DEADLINE_EXCEEDED: 504,
}
_DISCARDED = 1 << 16  # bytes at a time
_TIMEOUT = 30.0  # seconds of a computation, TF Serving's default


class Server(http.server.ThreadingHTTPServer):
    """Answers in threads of its own until it is stopped.

    Args:
        model: The `predictor.Model` to serve.
        host: String, the address to listen at.
        port: Int, `0` takes a free one.
        max_bytes: Int, size of the largest request.

    Attributes:
        port: Int, the port.
    """

    daemon_threads = True
    request_queue_size = 128  # connections that arrive at the same moment

    def __init__(
        self, model: predictor.Model, host: str, port: int, max_bytes: int
    ):
        super().__init__(
            (host, port), functools.partial(_Handler, model, max_bytes)
        )
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        # Most often a client that did not wait for its answer.
        logging.warning("%s: %r", client_address, sys.exception())

    def stop(self) -> None:
        """Answers nothing from now on."""
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds without a byte from the client
    disable_nagle_algorithm = True

    def __init__(self, model, max_bytes, *arguments):
        self._model = model
        self._max_bytes = max_bytes
        super().__init__(*arguments)

    def do_GET(self):
        self._answer(self._get)

    def do_POST(self):
        body = self._body()
        if body is not None:
            self._answer(functools.partial(self._post, body))

    def send_error(self, code, message=None, explain=None):
        # What the base class refuses, in the form of every other error.
        del explain
        self.close_connection = True
        self._send(code, {"error": message or self.responses[code][0]})

    def log_message(self, format, *arguments):
        logging.debug(format, *arguments)

    def _body(self):
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            self.send_error(411, "the request must state its Content-Length")
        elif int(length) > self._max_bytes:
            # Read all the same: a client that is still sending would not
            # hear the answer.
            left = int(length)
            while left and (got := self.rfile.read(min(left, _DISCARDED))):
                left -= len(got)
            self.send_error(
                413,
                f"the request has {length} bytes, at most {self._max_bytes} "
                "are accepted",
            )
        else:
            return self.rfile.read(int(length))
        return None

    def _answer(self, compute):
        try:
            code, answer = 200, compute()
        except tf.errors.OpError as error:
            code = _HTTP_STATUS.get(error.error_code, 500)
            answer = {"error": predictor.explain(error)}
        except Exception as error:  # a mistake of ours must not end the thread
            logging.exception("%s %s", self.command, self.path)
            code, answer = 500, {"error": repr(error)}
        self._send(code, answer)

    def _send(self, code, answer):
        body = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _get(self):
        name, version, action = self._parse_path()
        if action == ":predict":
            raise self._malformed()
        model = predictor.find(self._model, name)
        if action == "/metadata":
            return _metadata(model, version)
        return _to_json(model.status(version))

    def _post(self, body):
        name, version, action = self._parse_path()
        if action != ":predict":
            raise self._malformed()
        request = tensor_json.parse(body)
        with predictor.find(self._model, name).use(version) as served:
            signature = request.get("signature_name", "")
            inputs = tensor_json.arrays(request, served.signature(signature))
            outputs = served.run(signature, inputs, timeout=_TIMEOUT)
        return tensor_json.answer(request, outputs)

    def _parse_path(self):
        path = urllib.parse.unquote(self.path.split("?")[0])
        match = _PATH.fullmatch(path)
        if not match:
            raise self._malformed()
        version = match["version"] and int(match["version"])
        return match["model"], version, match["action"]

    def _malformed(self):
        return predictor.invalid(
            f"Malformed request: {self.command} {self.path}"
        )


def _metadata(model, version):
    signatures = get_model_metadata_pb2.SignatureDefMap()
    with model.use(version) as served:
        for name, signature in served.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        number = served.number
    return {
        "model_spec": {
            "name": model.name,
            "signature_name": "",
            "version": str(number),
        },
        "metadata": {"signature_def": _to_json(signatures)},
    }


def _to_json(message):
    return json_format.MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
