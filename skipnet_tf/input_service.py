"""Batches that other hosts prepare, with the service of tf.data."""

import socket
import urllib.parse

import tensorflow as tf

_SECONDS_TO_CONNECT = 5


def check(service: str) -> None:
    """Connects to a dispatcher once; TensorFlow would wait for it for long.

    Args:
        service: String, `"grpc://host:port"`.

    Raises:
        ValueError: If nothing answers there.
    """
    try:
        address = urllib.parse.urlsplit(service)
        if address.scheme != "grpc" or None in (address.hostname, address.port):
            raise ValueError("not of this form")
        place = address.hostname, address.port
        socket.create_connection(place, _SECONDS_TO_CONNECT).close()
    except (OSError, ValueError) as error:
        raise ValueError(
            "`service` expected the address of a tf.data service dispatcher "
            f"that answers, grpc://host:port ({error}). Received: {service!r}"
        ) from error


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
