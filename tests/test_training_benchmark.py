"""The comparison of training speeds: networks, turns, table and picture."""

import json

import architectures
import common
import input_pipeline
import keras
import numpy as np
import pytest
import steps
import tensorflow as tf
import tracing
import training
import training_report
import turns
from absl import flags

TINY = architectures.Architecture((1, 2), (4, 8), False, "cifar", 3, 8, 4)
DEEP = architectures.Architecture((1, 1), (4, 8), True, "imagenet", 3, 32, 4)


def row(contender, median, percent=100, precision="float32"):
    return {
        "precision": precision,
        "contender": contender,
        "percent": percent,
        "threads": 2,
        "batch": 8,
        "median": median,
        "minimum": median,
        "rounds": 5,
        "steps": 10,
        "memory": 64.4,
    }


ROWS = [
    row("dense", 20.0),
    row("conditional", 10.0, 50),
    row("pytorch", 40.0),
    row("dense", 10.0, precision="bfloat16"),
    row("conditional", 8.0, 50, "bfloat16"),
]
RESULT = {
    "network": "resnet0",
    "machine": {"processor": "Abacus 3", "tensorflow": "tensorflow 2.21.0"},
    "rows": ROWS,
}


class FakeTraining:
    parameters = 7

    def __init__(self):
        self.steps = 0

    def step(self):
        self.steps += 1

    def memory(self):
        return 12.5

    def loss(self):
        return 0.5


class FakeWorker:
    def __init__(self, name, calls):
        self.name = name
        self.calls = calls

    def ask(self, request, count):
        self.calls.append((self.name, request, count))
        return [9.0, *range(1, count)]


@pytest.mark.parametrize(
    "architecture", [architectures.cifar(8), DEEP], ids=["cifar", "imagenet"]
)
def test_peers_have_the_weights_of_the_dense_network(architecture):
    def count(weights):
        return sum(int(np.prod(weight.shape)) for weight in weights)

    dense = steps.compiled(architecture, "dense", 100)
    plain = steps.compiled(architecture, "keras", 100)
    expected = count(dense.trainable_variables)
    assert count(plain.trainable_variables) == expected
    pytest.importorskip("torch")
    import plain_torch

    found = plain_torch.ResNet(architecture)
    assert count(found.parameters()) == expected


def units(model):
    """Convolutions and their normalisation, shortcuts before their block."""
    found = [(model.stem_conv, model.stem_norm)]
    for block in model.blocks:
        if block.projection is not None:
            found.append((block.projection, block.projection_norm))
        found += zip(block.convolutions, block.norms)
    return found


def created(model, kind):
    """Layers of a kind as they were made; numbers end their names."""
    layers = [layer for layer in model.layers if isinstance(layer, kind)]
    return sorted(layers, key=lambda layer: (len(layer.name), layer.name))


@pytest.mark.parametrize("shapes", [TINY, DEEP], ids=["cifar", "imagenet"])
def test_plain_keras_computes_the_same(shapes):
    keras.backend.clear_session()  # names count from 0
    plain = steps.compiled(shapes, "keras", 100)
    dense = steps.compiled(shapes, "dense", 100)
    convolutions = created(plain, keras.layers.Conv2D)
    norms = created(plain, keras.layers.BatchNormalization)
    for ours, *theirs in zip(units(dense), convolutions, norms, strict=True):
        for one, other in zip(ours, theirs):
            other.set_weights(one.get_weights())
    plain.layers[-1].set_weights(dense.classifier.get_weights())
    images, _ = shapes.random_batch(4)
    # Inference first: Keras's moving variance is the biased estimate.
    for training_mode in (False, True):
        np.testing.assert_allclose(
            plain(images, training=training_mode),
            dense(images, training=training_mode),
            rtol=1e-3,
            atol=1e-4,
        )


@pytest.mark.parametrize("shapes", [TINY, DEEP], ids=["cifar", "imagenet"])
def test_pytorch_computes_the_same(shapes):
    torch = pytest.importorskip("torch")
    import plain_torch

    dense = steps.compiled(shapes, "dense", 100)
    weights = [
        array
        for convolution, norm in units(dense)
        for array in (
            np.transpose(convolution.kernel, (3, 2, 0, 1)),
            *norm.get_weights()[:2],
        )
    ]
    kernel, bias = dense.classifier.get_weights()
    network = plain_torch.ResNet(shapes)
    with torch.no_grad():
        for parameter, array in zip(
            network.parameters(), [*weights, kernel.T, bias], strict=True
        ):
            parameter.copy_(torch.from_numpy(np.array(array)))
        images, _ = shapes.random_batch(4)
        found = network(torch.from_numpy(images).permute(0, 3, 1, 2))
    np.testing.assert_allclose(
        found.numpy(), dense(images, training=True), rtol=1e-3, atol=1e-4
    )


def test_pytorch_trains_first_on_few_images_then_on_all():
    pytest.importorskip("torch")
    import plain_torch

    for precision in architectures.POLICIES:
        trained = plain_torch.Training(TINY, precision, 4, threads=1)
        for _ in range(2):
            trained.step()
        assert np.isfinite(trained.loss())


def test_a_conditional_step_trains_in_the_given_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = steps.compiled(TINY, "conditional", 50)
    assert model.training_execution == "conditional"
    trained = steps.KerasTraining(model, TINY, batch=4)
    for _ in range(2):
        trained.step()
    assert np.isfinite(trained.loss())
    assert trained.parameters > 0


@pytest.mark.parametrize("percent", [0, 25, 100])
def test_the_share_of_images_is_imposed_whatever_the_gates_say(percent):
    stage = steps.Imposed(percent, "conditional")
    policy = stage.policy(tf.constant([1, 2]), None)
    logits = tf.fill([2000], 9.0)
    first, second = policy(logits, 0).numpy(), policy(logits, 1).numpy()
    assert first.mean() == pytest.approx(percent / 100, abs=0.05)
    assert (first != second).any() == (percent == 25)


def test_workers_take_turns_and_first_steps_do_not_count():
    calls = []
    workers = [FakeWorker("a", calls), FakeWorker("b", calls)]
    times = turns.take_turns(workers, steps=3, seconds=0)
    assert times == [[1, 2] * 5] * 2
    assert calls == [("a", "run", 3), ("b", "run", 3)] * 5


def test_a_session_warms_up_and_times_every_step():
    fake = FakeTraining()
    session = turns.Session(fake)
    assert session.parameters() == 7 and session.loss() == 0.5
    assert session.warm_up(3) == 12.5 and fake.steps == 3
    assert len(session.run(2)) == 2 and fake.steps == 5


def test_memory_is_that_of_the_tensors_alive_together():
    @tf.function
    def double():
        # 64 MiB, then its double beside it.
        ones = tf.ones([tf.random.uniform([], 2**24, 2**24 + 1, tf.int32)])
        return tf.reduce_sum(tf.cumsum(ones) * ones)

    double()
    assert 120 < tracing.peak_memory(double) < 260


def test_operations_are_named_and_timed():
    product = tf.function(lambda: tf.linalg.inv(tf.random.normal([32, 32])))
    product()
    found = dict(tracing.operations(product))
    assert 0 < found["MatrixInverse"] < 1000


def test_the_input_pipeline_counts_images():
    found = input_pipeline.images_per_second("digits", "train", None, 32, 3, 2)
    assert found > 0


def test_dense_is_always_among_the_contenders():
    found = training.contenders(
        {"conditional", "masked", "self_critical"}, [50, 10, 50]
    )
    assert [(c.kind, c.percent) for c in found] == [
        ("dense", 100),
        ("masked", 50),
        ("self_critical", 50),
        ("conditional", 50),
        ("conditional", 10),
    ]


def test_other_networks_and_divergence_are_errors():
    training.check_parameters({"dense": 7, "sp": 9, "keras": 7})
    with pytest.raises(RuntimeError, match="pytorch trains another"):
        training.check_parameters({"dense": 7, "pytorch": 8})
    contender = turns.Contender("masked", 50)
    training.check_losses({contender: 1.0})
    with pytest.raises(RuntimeError, match="HRL masked, 50 %.*nan"):
        training.check_losses({contender: float("nan")})


def test_bad_flags_are_told_in_a_line():
    values = flags.FlagValues()
    names = flags.DEFINE_list("names", ["a", "c"], "", flag_values=values)
    shares = flags.DEFINE_list("shares", ["5", "101"], "", flag_values=values)
    words = flags.DEFINE_list("words", ["x"], "", flag_values=values)
    values.mark_as_parsed()
    with pytest.raises(ValueError, match="--names takes a,b; received a,c"):
        common.check_choices(names, ("a", "b"))
    with pytest.raises(ValueError, match="--shares takes numbers of 0 to 100"):
        common.numbers(shares, 0, 100)
    with pytest.raises(ValueError, match="--words takes whole numbers"):
        common.numbers(words, 0, 100)
    with pytest.raises(ValueError, match="--threads takes at most"):
        training._cores(10_000)


def test_a_missing_peer_is_left_out_with_a_line(capsys):
    wanted = {"numpy": ("numpy",), "abacus": ("no_such_package",)}
    assert common.installed(wanted) == ["numpy"]
    assert "skipnet_tf[benchmark]" in capsys.readouterr().err


def test_the_table_has_speeds_ratios_and_memory():
    speeds = training_report.Speeds(ROWS)
    assert training_report.table(speeds).splitlines()[2:] == [
        "| dense | 400.0 | 1.00 | 64 | 800.0 | 1.00 | 64 | 2.00 |",
        "| HRL conditional, 50 % | 800.0 | 2.00 | 64 | 1000.0 | 1.25 | 64 "
        "| 1.25 |",
        "| PyTorch, dense | 200.0 | 0.50 | 64 |  |  |  |  |",
    ]


def test_results_become_a_table_and_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="no training_"):
        training_report.write(str(tmp_path))
    path = common.save(str(tmp_path), "training", RESULT)
    with open(path) as file:
        assert json.load(file) == RESULT
    table, picture = training_report.write(str(tmp_path))
    assert (tmp_path / "training.png").stat().st_size > 10_000
    assert picture.endswith("training.png")
    text = open(table).read()
    assert "Abacus 3" in text and "## resnet0" in text
