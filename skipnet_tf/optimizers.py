"""Gradient descent as the paper used it (Sec. 4 "Training")."""

import keras


@keras.saving.register_keras_serializable(package="skipnet_tf")
class SGD(keras.optimizers.SGD):
    """SGD with momentum and L2 regularisation inside the gradient.

    `g + l2 * w` enters the momentum, as in PyTorch's SGD that the published
    code used. The `weight_decay` of Keras optimizers is decoupled: it shrinks
    the weight beside the momentum, which is another method. All weights are
    regularised, those of gates and normalisation too, as published.

    Args:
        learning_rate: Float or schedule. Defaults to `0.1`.
        momentum: Float in [0, 1). Defaults to `0.9`.
        nesterov: Bool. Defaults to `False`.
        l2: Float, at least 0. Defaults to `1e-4`.
        name: String. Defaults to `"SGD"`.
    """

    def __init__(
        self,
        learning_rate=0.1,
        momentum=0.9,
        nesterov=False,
        l2=1e-4,
        name="SGD",
    ):
        super().__init__(
            learning_rate=learning_rate,
            momentum=momentum,
            nesterov=nesterov,
            name=name,
        )
        if l2 < 0:
            raise ValueError(f"`l2` must be at least 0. Received: l2={l2}")
        self.l2 = l2

    def update_step(self, gradient, variable, learning_rate):
        """One step of one variable, see `keras.optimizers.Optimizer`."""
        gradient = gradient + self.l2 * keras.ops.cast(variable, gradient.dtype)
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        """Constructor arguments."""
        config = super().get_config()
        names = ("learning_rate", "momentum", "nesterov", "name")
        return {**{name: config[name] for name in names}, "l2": self.l2}
