"""tf.data services."""

import socket
import threading

import numpy as np
import pytest
import tensorflow as tf
from photograph_cases import load
from photograph_cases import numbers_of

from skipnet_tf import data
from skipnet_tf import input_service


def test_services_that_do_not_answer_are_one_sentence(folder):
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        address = f"grpc://localhost:{taken.getsockname()[1]}"
    for service in (address, "grpc://localhost", "nonsense"):
        with pytest.raises(ValueError, match="`service`.*grpc://host:port"):
            load(folder, training=True, service=service)
    for arguments in ({"training": False}, {"name": "digits"}):
        arguments = {"training": True, "service": address, **arguments}
        name = arguments.pop("name", "image_folder")
        with pytest.raises(ValueError, match="`service` expected None unless"):
            data.load(name, "train", batch_size=1, **arguments)


def test_servers_that_speak_no_grpc_are_refused(monkeypatch):
    monkeypatch.setattr(input_service, "_SECONDS_TO_ANSWER", 0.1)
    with socket.create_server(("localhost", 0)) as silent:
        address = f"grpc://localhost:{silent.getsockname()[1]}"
        with pytest.raises(ValueError, match=r"`service`.*\(timed out\)"):
            input_service.check(address)
    with socket.create_server(("localhost", 0)) as other:
        address = f"grpc://localhost:{other.getsockname()[1]}"

        def answer():
            connection, _ = other.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ValueError, match="does not speak gRPC"):
            input_service.check(address)
        thread.join()


def test_dispatchers_are_known_by_their_answer():
    dispatcher = tf.data.experimental.service.DispatchServer()
    input_service.check(dispatcher.target)
    dispatcher._stop()


def test_a_resumed_service_begins_another_order(sound, monkeypatch):
    def here(batches, service, count):
        return batches.take(count)

    monkeypatch.setattr(input_service, "distribute", here)
    monkeypatch.setattr(input_service, "check", lambda service: None)

    def order(first_step):
        dataset = load(
            sound,
            name="tfrecords",
            training=True,
            epochs=2,
            first_step=first_step,
            service="grpc://localhost:1",
        )
        assert len(dataset) == 4 - first_step
        return [n for _, labels in dataset for n in labels.numpy()][:10]

    orders = [order(first_step) for first_step in (0, 2)]
    assert all(sorted(found) == list(range(10)) for found in orders)
    # Equal by chance once in 10! times.
    assert orders[0] != orders[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["image_folder", "tfrecords"])
def test_a_service_delivers_every_image_about_once_an_epoch(
    name, folder, sound
):
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    address = dispatcher.target
    workers = [
        service.WorkerServer(
            service.WorkerConfig(dispatcher_address=address.split("://")[1])
        )
        for _ in range(2)
    ]
    dataset = load(
        folder if name == "image_folder" else sound,
        name=name,
        training=True,
        epochs=6,
        first_step=2,
        service=address,
    )
    assert len(dataset) == 10
    numbers = [n for images, _ in dataset for n in numbers_of(images.numpy())]
    assert len(numbers) == 50
    counts = np.bincount(numbers, minlength=10)
    expected = [0, 1, 2, 4, 7, 8, 9] if name == "image_folder" else range(10)
    # 5 epochs; corrupt images repeat others.
    assert all(2 <= counts[number] for number in expected)
    assert sum(counts[number] for number in expected) == 50
    for server in (*workers, dispatcher):
        server._stop()
