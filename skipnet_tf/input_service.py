"""Batches that other hosts prepare, with the service of tf.data."""

import socket
import urllib.parse

import tensorflow as tf

_SECONDS_TO_ANSWER = 5
# Both sides of HTTP/2, on which gRPC runs, begin with a SETTINGS frame (RFC
# 9113, 3.4): 3 bytes of length, its type, 1 byte of flags, 4 of the stream.
_SETTINGS = 4
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(
    (0, 0, 0, _SETTINGS, *5 * [0])
)


def check(service: str) -> None:
    """Greets a dispatcher once; TensorFlow would wait for it for long.

    Args:
        service: String, `"grpc://host:port"`.

    Raises:
        ValueError: If nothing answers there, or something else than gRPC.
    """
    try:
        address = urllib.parse.urlsplit(service)
        if address.scheme != "grpc" or None in (address.hostname, address.port):
            raise ValueError("not of this form")
        place = address.hostname, address.port
        _greet(place)
    except (OSError, ValueError) as error:
        raise ValueError(
            "`service` expected the address of a tf.data service dispatcher "
            f"that answers, grpc://host:port ({error}). Received: {service!r}"
        ) from error


def _greet(place):
    with socket.create_connection(place, _SECONDS_TO_ANSWER) as connection:
        connection.sendall(_GREETING)
        with connection.makefile("rb") as answer:
            header = answer.read(9)
    if len(header) < 9 or header[3] != _SETTINGS:
        raise ValueError("what answers there does not speak gRPC")


def distribute(
    batches: tf.data.Dataset, service: str, count: int
) -> tf.data.Dataset:
    """Has the workers of a service prepare batches.

    Args:
        batches: Endless data set.  Its files are dealt out to the workers as
            they ask for them, once in each of its repetitions.
        service: String, `"grpc://host:port"`.
        count: Int, batches to take.

    Returns:
        Data set of `count` batches, in the order in which they are ready.
    """
    policy = tf.data.experimental.service.ShardingPolicy.DYNAMIC
    prepared = tf.data.experimental.service.distribute(policy, service)
    return batches.apply(prepared).take(count)
