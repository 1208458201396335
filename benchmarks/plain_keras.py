"""The same ResNet from Keras's own layers, as keras.applications has its."""

import keras
from architectures import Architecture
from keras import layers


def resnet(architecture: Architecture) -> keras.Model:
    """A functional model in the global precision, logits in float32.

    Args:
        architecture: The shapes.

    Returns:
        The model, not compiled.
    """
    inputs = keras.Input((architecture.size, architecture.size, 3))
    large = architecture.stem == "imagenet"
    x = _convolution(
        inputs,
        architecture.filters[0],
        7 if large else 3,
        2 if large else 1,
    )
    x = layers.ReLU()(x)
    if large:
        x = layers.ZeroPadding2D(1)(x)
        x = layers.MaxPooling2D(3, 2)(x)
    for filters, strides in architecture.every_block():
        x = _block(x, architecture.convolutions(filters, strides), strides)
    x = layers.GlobalAveragePooling2D()(x)
    logits = layers.Dense(architecture.classes, dtype="float32")(x)
    return keras.Model(inputs, logits)


def _block(inputs, convolutions, strides):
    width = convolutions[-1][0]
    shortcut = inputs
    if strides != 1 or inputs.shape[-1] != width:
        shortcut = _convolution(inputs, width, 1, strides)
    x = inputs
    for index, (filters, kernel, stride) in enumerate(convolutions):
        if index:
            x = layers.ReLU()(x)
        x = _convolution(x, filters, kernel, stride)
    return layers.ReLU()(layers.Add()([x, shortcut]))


def _convolution(x, filters, kernel, strides):
    """Convolution and normalisation."""
    padding = "same"
    if strides > 1 and kernel > 1:
        # "same" would pad a stride of 2 on one side only.
        x = layers.ZeroPadding2D(kernel // 2)(x)
        padding = "valid"
    x = layers.Conv2D(
        filters,
        kernel,
        strides,
        padding,
        use_bias=False,
        kernel_initializer="he_normal",
    )(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
