"""What every public layer must do; the list is in `cases.py`."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import LAYERS

from skipnet_tf import confidence
from skipnet_tf import gates


@pytest.fixture(params=list(LAYERS))
def case(request):
    return LAYERS[request.param]


def _called(layer, inputs, **arguments):
    """Outputs of a call, states of gates included, as a flat list."""
    outputs = tf.nest.flatten(layer(*inputs, **arguments))
    return [output for output in outputs if output is not None]


def _arguments(layer):
    names = set(inspect.signature(type(layer).__init__).parameters)
    return names - {"self", "dtype"}


def test_layers_survive_serialisation_with_every_argument(case):
    layer, inputs = case.make(), case.inputs()
    expected = _called(layer, inputs)
    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    assert _arguments(layer) <= set(layer.get_config())
    _called(again, inputs)
    again.set_weights(layer.get_weights())
    for one, other in zip(_called(again, inputs), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_layers_run_in_half_precision(case):
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer, inputs = case.make(), case.inputs()
    outputs = _called(layer, inputs)
    # Gates answer in float32 whatever the policy, everything else in half.
    gate = type(layer).__module__ in (gates.__name__, confidence.__name__)
    assert outputs[0].dtype == (tf.float32 if gate else tf.bfloat16)
    for output in outputs:
        assert np.isfinite(tf.cast(output, tf.float32)).all()
    assert {v.dtype for v in layer.trainable_variables} == {"float32"}


def test_half_precision_stays_near_single_precision(case):
    inputs = case.inputs()
    single = case.make()
    expected = _called(single, inputs)
    keras.config.set_dtype_policy("mixed_bfloat16")
    half = case.make()
    _called(half, inputs)
    half.set_weights(single.get_weights())
    for one, other in zip(_called(half, inputs), expected, strict=True):
        one, scale = tf.cast(one, tf.float32), np.abs(other).max()
        # bfloat16 has 8 bits: 0.4 % each time it rounds.
        np.testing.assert_allclose(one, other, atol=0.05 * scale + 0.01)


def test_one_step_of_training_has_finite_gradients(case):
    layer, inputs = case.make(), case.inputs()
    arguments = {"training": True} if case.training else {}
    _called(layer, inputs)
    with tf.GradientTape() as tape:
        outputs = _called(layer, inputs, **arguments)
        loss = sum(tf.reduce_sum(tf.sin(output)) for output in outputs)
    gradients = tape.gradient(loss, layer.trainable_variables)
    for variable, gradient in zip(layer.trainable_variables, gradients):
        assert gradient is not None, variable.path
        assert np.isfinite(gradient).all(), variable.path
    assert any(np.abs(gradient).max() > 0 for gradient in gradients)


def test_layers_run_inside_a_function_of_unknown_sizes(case):
    layer, inputs = case.make(), case.inputs()
    expected = _called(layer, inputs)

    def unknown(value):
        value = tf.convert_to_tensor(value)
        sizes = [None] * (value.shape.rank - 1)
        last = value.shape[-1:] if sizes else [None]
        return tf.TensorSpec([*sizes, *last], value.dtype)

    signature = [tf.nest.map_structure(unknown, value) for value in inputs]
    function = tf.function(lambda *values: _called(layer, values))
    function = function.get_concrete_function(*signature)
    flat = [tf.convert_to_tensor(value) for value in tf.nest.flatten(inputs)]
    for one, other in zip(function(*flat), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_layers_are_saved_inside_a_saved_model(case, tmp_path):
    layer, inputs = case.make(), case.inputs()
    expected = _called(layer, inputs)
    flat = [tf.convert_to_tensor(value) for value in tf.nest.flatten(inputs)]
    module = tf.Module()
    module.layer = layer

    @tf.function(input_signature=[tf.TensorSpec(v.shape) for v in flat])
    def call(*values):
        packed = tf.nest.pack_sequence_as(inputs, values)
        return _called(layer, packed)

    module.call = call
    tf.saved_model.save(module, str(tmp_path))
    restored = tf.saved_model.load(str(tmp_path))
    for one, other in zip(restored.call(*flat), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_every_public_layer_is_in_the_list():
    registered = {
        value
        for name, value in keras.saving.get_custom_objects().items()
        if name.startswith("skipnet_tf>")
        and issubclass(value, keras.layers.Layer)
        and not issubclass(value, keras.Model)
    }
    listed = {type(case.make()) for case in LAYERS.values()}
    assert registered == listed
    assert len(listed) == 11
