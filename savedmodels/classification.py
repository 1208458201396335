"""Image files in, one line for each out: what the client does."""

import dataclasses
import itertools
import pathlib
import sys
import time
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

import connection

_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclasses.dataclass(frozen=True)
class Request:
    """How images are sent.

    Args:
        signature: String, `"image_bytes"` sends files; `"serving_default"`
            and `"tunable"` send pixels, decoded here.
        threshold: Float, of `"tunable"`, from 0 to 1; blocks run where the
            gate's probability reaches it.
        preprocessing: String, the data set that says how pixels are resized,
            see `skipnet_tf.preprocessing`. Defaults to none, as they are.
        deadline: Float, seconds for a request with its retries.

    Raises:
        ValueError: If there is a threshold without `"tunable"`, or the other
            way round.
    """

    signature: str = "image_bytes"
    threshold: float | None = None
    preprocessing: str | None = None
    deadline: float = 30.0

    def __post_init__(self):
        if (self.signature == "tunable") != (self.threshold is not None):
            raise ValueError(
                "`threshold` goes with signature=tunable. Received: "
                f"signature={self.signature}, threshold={self.threshold}"
            )

    def inputs(self, images: Sequence[bytes]) -> dict[str, Sequence]:
        """Returns the inputs of the signature for encoded images."""
        if self.signature == "image_bytes":
            return {"bytes": images}
        inputs = {"images": _pixels(images, self.preprocessing)}
        if self.threshold is not None:
            inputs["threshold"] = [self.threshold] * len(images)
        return inputs


def find_images(arguments: Sequence[str]) -> list[str]:
    """Returns the files to send: files as named, those of folders sorted.

    Args:
        arguments: Files, folders, and `"-"` for standard input, which is also
            what no argument stands for.

    Raises:
        ValueError: If a folder holds no image.
    """
    found = []
    for argument in arguments or ["-"]:
        path = pathlib.Path(argument)
        if not path.is_dir():
            found.append(argument)
            continue
        images = sorted(
            str(file)
            for file in path.iterdir()
            if file.suffix.lower() in _SUFFIXES
        )
        if not images:
            raise ValueError(f"{argument} holds no {' '.join(_SUFFIXES)}")
        found += images
    return found


def classify(
    service: connection.Connection,
    names: Iterable[str],
    request: Request,
    batch: int = 1,
) -> Iterator[tuple[str, str | Exception]]:
    """Sends images and yields, in order, a line or an error for each.

    An image that cannot be read or is rejected has an error of its own; in a
    batch, the others are then sent again one by one.

    Args:
        service: From `connection.connect`.
        names: Files, `"-"` is standard input.
        request: How images are sent.
        batch: Int, images of a request.

    Raises:
        connection.Failure: If the server answers no request.
    """
    names = iter(names)
    while chunk := list(itertools.islice(names, batch)):
        images, outcomes = {}, {}
        for name in chunk:
            try:
                images[name] = _read(name)
            except OSError as error:
                outcomes[name] = error
        if images:
            outcomes |= _send(service, images, request)
        for name in chunk:
            yield name, outcomes[name]


def _send(service, images, request):
    try:
        inputs = request.inputs(list(images.values()))
        start = time.perf_counter()
        outputs = connection.with_retries(
            lambda left: service.predict(request.signature, inputs, left),
            request.deadline,
        )
    except connection.Rejected as error:
        if len(images) == 1:
            return dict.fromkeys(images, error)
        outcomes = {}
        for name, encoded in images.items():
            outcomes |= _send(service, {name: encoded}, request)
        return outcomes
    milliseconds = 1e3 * (time.perf_counter() - start)
    outcomes = {}
    for row, name in enumerate(images):
        answer = {key: values[row] for key, values in outputs.items()}
        outcomes[name] = f"{describe(answer)}, {milliseconds:.1f} ms"
    return outcomes


def describe(answer: dict) -> str:
    """Returns what a network says about one image.

    Args:
        answer: Dictionary of the signature's outputs for the image.

    Returns:
        String, class, probability, blocks executed and multiply-adds.  The
        first block has no gate and is always executed.
    """
    best = answer["classes"][0]
    names = answer.get("class_names")
    label = names[0] if names else f"class {best}"
    executed = 1 + round(sum(answer["gates"]))
    return (
        f"{label} {answer['probabilities'][best]:.3f}, "
        f"{executed} of {1 + len(answer['gates'])} blocks, "
        f"{answer['macs']:,} multiply-adds"
    )


def _read(name):
    if name == "-":
        return sys.stdin.buffer.read()
    return pathlib.Path(name).read_bytes()


def _pixels(images, preprocessing):
    import numpy as np
    import tensorflow as tf

    decode = _decoder(preprocessing)
    try:
        return np.stack([decode(encoded).numpy() for encoded in images])
    except (tf.errors.OpError, ValueError) as error:
        message = getattr(error, "message", str(error))
        raise connection.Rejected(message) from error


def _decoder(preprocessing):
    if preprocessing:
        from skipnet_tf import preprocessing as preprocessings

        return preprocessings.get(preprocessing).decode
    import tensorflow as tf

    return lambda encoded: tf.io.decode_image(
        encoded, channels=3, expand_animations=False
    )
