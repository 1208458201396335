"""A student between its labels and its teacher."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import skipnet
from training_cases import HYBRID
from training_cases import IMAGES
from training_cases import LABELS
from training_cases import fit
from training_cases import network
from training_cases import sgd

import skipnet_tf
from skipnet_tf.distillation import Distillation


def _dense(num_classes=3, channels=3):
    return skipnet_tf.ResNet(
        (1, 1),
        (4, 4),
        num_classes=num_classes,
        input_shape=(None, None, channels),
    )


def _hybrid(student, distillation=None):
    student.compile(
        sgd(0.1),
        stage=skipnet_tf.HybridReinforce(**HYBRID),
        run_eagerly=True,
        distillation=distillation,
    )
    return student


def _softened(logits, temperature=2.0):
    powers = np.exp(np.asarray(logits, "float64") / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("make", [_dense, network])
def test_the_loss_lies_between_label_and_teacher(make):
    teacher, student = _dense(), make()
    batch = IMAGES[:8]
    student.compile(
        sgd(0.1),
        run_eagerly=True,
        distillation=Distillation(teacher, 0.25, 2.0),
    )
    start, taught = student.get_weights(), teacher.get_weights()
    with tf.GradientTape() as tape:
        logits = student(batch, training=True)
        # Up to a constant, the entropy of the teacher.
        target = _softened(teacher(batch)).astype("float32")
        label = tf.nn.sparse_softmax_cross_entropy_with_logits(
            LABELS[:8], logits
        )
        taught_by = tf.nn.softmax_cross_entropy_with_logits(
            target, logits / 2.0
        )
        loss = tf.reduce_mean(0.75 * label + 0.25 * 4.0 * taught_by)
    gradients = tape.gradient(loss, student.trainable_variables)
    expected = [
        variable.numpy() - 0.1 * gradient.numpy()
        for variable, gradient in zip(student.trainable_variables, gradients)
    ]
    divergence = np.sum(target * np.log(target / _softened(logits)), axis=1)
    student.set_weights(start)
    history = fit(student).history
    for variable, value in zip(student.trainable_variables, expected):
        np.testing.assert_allclose(variable, value, rtol=1e-4, atol=1e-6)
    distilled = 4.0 * np.mean(divergence)
    assert history["distillation_loss"] == pytest.approx([distilled], rel=1e-4)
    assert history["loss"][0] == pytest.approx(
        0.75 * np.mean(label) + 0.25 * distilled, rel=1e-4
    )
    for before, after in zip(taught, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_rewards_keep_the_plain_loss():
    plain, student = network(), network()
    student.set_weights(plain.get_weights())
    alone = fit(_hybrid(plain)).history
    taught = fit(_hybrid(student, Distillation(_dense()))).history
    assert taught["mean_reward"] == pytest.approx(alone["mean_reward"])
    assert taught["policy_loss"] == pytest.approx(alone["policy_loss"])
    assert taught["loss"] != pytest.approx(alone["loss"])
    assert set(taught) - set(alone) == {"distillation_loss"}


def test_the_teacher_is_no_part_of_the_student(tmp_path):
    plain, student = network(), network()
    plain.compile(sgd())
    teacher = _dense()
    student.compile(sgd(), distillation=Distillation(teacher))
    assert student.count_params() == plain.count_params()
    assert len(student.variables) == len(plain.variables)
    assert len(student.layers) == len(plain.layers)
    paths = []
    for model, name in ((plain, "plain"), (student, "student")):
        path = tf.train.Checkpoint(model=model).write(str(tmp_path / name))
        paths.append({key for key, _ in tf.train.list_variables(path)})
    assert paths[0] == paths[1]
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    assert loaded.compiled and loaded.distillation is None


def test_validation_knows_no_teacher():
    student = _dense()
    student.compile(
        sgd(), run_eagerly=True, distillation=Distillation(_dense())
    )
    history = fit(student, validation_data=(IMAGES, LABELS)).history
    assert set(history) == {"loss", "distillation_loss", "val_loss"}
    logits = student.predict(IMAGES, verbose=0)
    surprise = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits)
    assert history["val_loss"][0] == pytest.approx(np.mean(surprise), rel=1e-4)


@pytest.mark.parametrize(
    ("classes", "channels", "received"),
    [(4, 3, "4 classes and 3"), (3, 1, "3 classes and 1")],
)
def test_a_teacher_of_something_else_is_refused(classes, channels, received):
    distillation = Distillation(_dense(classes, channels))
    expected = f"`distillation` .*3 classes.*3 channels.*Received: .*{received}"
    for student in (network(), _dense()):
        with pytest.raises(ValueError, match=expected):
            student.compile(sgd(), distillation=distillation)


def test_pure_reinforcement_has_no_teacher():
    with pytest.raises(ValueError, match="`distillation` must be None"):
        network().compile(
            sgd(),
            stage=skipnet_tf.Reinforce(),
            distillation=Distillation(_dense()),
        )


def test_a_teacher_alone_is_refused():
    with pytest.raises(ValueError, match="must be a Distillation.*Received"):
        network().compile(sgd(), distillation=_dense())


def test_a_teacher_that_skips_is_refused_by_xla():
    for execution in ("masked", "conditional"):
        distillation = Distillation(skipnet(execution=execution))
        network().compile(sgd(), distillation=distillation)
    with pytest.raises(ValueError, match='execution="masked".*XLA'):
        network().compile(sgd(), distillation=distillation, jit_compile=True)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("teacher", {"teacher": "resnet"}),
        ("weight", {"weight": 1.5}),
        ("weight", {"weight": -0.5}),
        ("temperature", {"temperature": 0.0}),
    ],
)
def test_bad_arguments_of_a_distillation_are_refused(name, arguments):
    with pytest.raises(ValueError, match=f"`{name}` must .*Received: {name}="):
        Distillation(**{"teacher": _dense(), **arguments})
