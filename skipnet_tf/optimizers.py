"""Gradient descent as the paper used it (Sec. 4 "Training")."""

import keras
import tensorflow as tf

_GATE = "_gate/"  # in the path of every weight of a gate


@keras.saving.register_keras_serializable(package="skipnet_tf")
class SGD(keras.optimizers.SGD):
    """SGD with momentum and L2 regularisation inside the gradient.

    `g + l2 * w` enters the momentum, as in PyTorch's SGD that the published
    code used. The `weight_decay` of Keras optimizers is decoupled: it shrinks
    the weight beside the momentum, which is another method. All weights are
    regularised, those of normalisation too, and, unless `gate_l2` says
    otherwise, those of gates, as published.

    With `use_ema` the optimizer also keeps a moving average of each weight,
    `average = ema_momentum * average + (1 - ema_momentum) * weight` after
    every step, the weights themselves after the first. The averages are among
    the optimizer's variables. `fit` leaves the weights as they were trained,
    where Keras would overwrite them at its end, so that training can go on;
    `assign_averages` copies them when it is over. To validate under averages
    use `keras.callbacks.SwapEMAWeights()`. Statistics of normalisation are no
    weights: they stay those of training.

    Args:
        learning_rate: Float or schedule. Defaults to `0.1`.
        momentum: Float in [0, 1). Defaults to `0.9`.
        nesterov: Bool. Defaults to `False`.
        l2: Float, at least 0. Defaults to `1e-4`.
        name: String. Defaults to `"SGD"`.
        use_ema: Bool, keep moving averages. Defaults to `False`.
        ema_momentum: Float in [0, 1], share of an average that a step keeps.
            Defaults to `0.999`.
        gate_rate: Float, at least 0, learning rate of the gates relative to
            that of all other weights. Defaults to `1.0`.
        gate_l2: Optional float, at least 0, `l2` of the gates. Defaults to
            `None`, as all other weights.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        learning_rate=0.1,
        momentum=0.9,
        nesterov=False,
        l2=1e-4,
        name="SGD",
        use_ema=False,
        ema_momentum=0.999,
        gate_rate=1.0,
        gate_l2=None,
    ):
        super().__init__(
            learning_rate=learning_rate,
            momentum=momentum,
            nesterov=nesterov,
            name=name,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
        )
        for argument, value in (
            ("l2", l2),
            ("gate_rate", gate_rate),
            ("gate_l2", gate_l2),
        ):
            if value is not None and value < 0:
                raise ValueError(
                    f"`{argument}` must be at least 0. "
                    f"Received: {argument}={value}"
                )
        self.l2 = l2
        self.gate_rate = gate_rate
        self.gate_l2 = gate_l2

    def build(self, variables):
        """Makes the momenta, see `keras.optimizers.Optimizer`."""
        super().build(variables)
        # Updates see variables of TensorFlow, which have no path.
        self._of_gate = [_GATE in variable.path for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        """One step of one variable, see `keras.optimizers.Optimizer`."""
        l2 = self.l2
        if self._of_gate[self._get_variable_index(variable)]:
            learning_rate = learning_rate * self.gate_rate
            l2 = l2 if self.gate_l2 is None else self.gate_l2
        gradient = gradient + l2 * keras.ops.cast(variable, gradient.dtype)
        super().update_step(gradient, variable, learning_rate)

    def finalize_variable_values(self, var_list):
        """Leaves the weights as trained: `fit` may be called again."""

    def get_config(self):
        """Constructor arguments."""
        config = super().get_config()
        names = (
            "learning_rate",
            "momentum",
            "nesterov",
            "name",
            "use_ema",
            "ema_momentum",
        )
        return {
            **{name: config[name] for name in names},
            "l2": self.l2,
            "gate_rate": self.gate_rate,
            "gate_l2": self.gate_l2,
        }


def averages(model: keras.Model) -> bool:
    """Whether the optimizer of a compiled model averages its weights."""
    return _plain(model.optimizer).use_ema


def _plain(optimizer):
    # float16 has the optimizer within one that scales the loss.
    return getattr(optimizer, "inner_optimizer", optimizer)


def assign_averages(model: keras.Model) -> None:
    """Copies the optimizer's moving averages into the weights of `model`.

    For the end of a stage of training: what the weights were before is lost.

    Args:
        model: Compiled network whose optimizer has `use_ema`, possibly within
            a `LossScaleOptimizer`.

    Raises:
        ValueError: If the optimizer keeps no averages or has taken no step.
    """
    optimizer = _plain(model.optimizer)
    steps = int(keras.ops.convert_to_numpy(optimizer.iterations))
    if not optimizer.use_ema or not steps:
        raise ValueError(
            "`model` must have been trained by an optimizer with "
            f"use_ema=True. Received: use_ema={optimizer.use_ema} after "
            f"{steps} steps"
        )
    # Keras has no public name for either list.
    for variable, average in zip(
        optimizer._trainable_variables,
        optimizer._model_variables_moving_average,
        strict=True,
    ):
        variable.assign(average)


def share_overflow(gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """Makes a gradient that is not finite so on all replicas.

    Keras's `LossScaleOptimizer` asks one replica whether to take a step, and
    the sum over replicas would carry the overflow of another into the weights.

    Args:
        gradients: List of float tensors, those of this replica.

    Returns:
        The list, its first gradient NaN if any replica's is not finite.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return gradients
    finite = [tf.reduce_all(tf.math.is_finite(each)) for each in gradients]
    overflow = 1.0 - tf.cast(tf.reduce_all(finite), tf.float32)
    overflow = context.all_reduce(tf.distribute.ReduceOp.SUM, overflow)
    mark = tf.where(overflow > 0.0, float("nan"), 0.0)
    return [gradients[0] + mark, *gradients[1:]]
