"""Rewards and losses of training, Eq. 5 and 6 (Sec. 3.2) before all.

Pure functions of tensors. Every reward belongs to one image and one gate:
shapes are checked, because a `(batch, 1)` times `(batch,)` product silently
broadcasts to `(batch, batch)` and destroys the credit of each image.
"""

from collections.abc import Sequence

import tensorflow as tf


def returns(
    gates: tf.Tensor,
    cross_entropy: tf.Tensor,
    alpha: float | tf.Tensor,
    beta: float | str | tf.Tensor = 1.0,
    gamma: float | tf.Tensor = 1.0,
    costs: tf.Tensor | None = None,
) -> tf.Tensor:
    """Cumulative future return of every gate (Eq. 5 and 6).

    `R[N+1] = -beta * L` and
    `R[i] = alpha / N * (1 - g[i]) * C[i] + gamma * R[i+1]`.

    Args:
        gates: Float tensor `(batch, gates)`, 1 executed, 0 skipped.
        cross_entropy: Float tensor `(batch,)`, prediction loss L in nats.
        alpha: Float, price of computation, at least 0.
        beta: Float, weight of the prediction loss in the return, or the
            string `"alpha/N"`, the paper's relaxation for ImageNet, which
            follows an annealed alpha. Defaults to `1.0`.
        gamma: Float in [0, 1], discount from gate to gate. Defaults to `1.0`.
        costs: Optional float tensor `(gates,)`, relative cost C of each
            block, scaled to mean 1 here. Defaults to `None`, all equal.

    Returns:
        Float32 tensor `(batch, gates)`.

    Raises:
        ValueError: If the shapes do not fit or `beta` is an unknown string.

    Reference:
        - [Wang et al., 2018](https://arxiv.org/abs/1711.09485), Sec. 3.2
    """
    gates = tf.cast(gates, tf.float32)
    cross_entropy = tf.cast(cross_entropy, tf.float32)
    _check_rank("gates", gates, 2, "(batch, gates)")
    _check_rank("cross_entropy", cross_entropy, 1, "(batch,)")
    _check_equal("cross_entropy", cross_entropy, gates, 1)
    count = tf.shape(gates)[1]
    price = tf.cast(alpha, tf.float32) / tf.cast(count, tf.float32)
    if isinstance(beta, str):
        if beta != "alpha/N":
            raise ValueError(
                f'`beta` must be a number or "alpha/N". Received: beta={beta!r}'
            )
        beta = price
    bonus = price * (1.0 - gates)
    if costs is not None:
        costs = tf.cast(costs, tf.float32)
        _check_rank("costs", costs, 1, "(gates,)")
        if costs.shape[0] != gates.shape[1]:
            raise ValueError(
                f"`costs` must hold one number per gate, {gates.shape[1]}. "
                f"Received: costs of shape {tuple(costs.shape)}"
            )
        bonus *= costs / tf.reduce_mean(costs)
    steps = tf.cast(tf.range(count), tf.float32)
    gamma = tf.cast(gamma, tf.float32)
    ahead = steps[:, None] - steps[None, :]  # [j, i] = j - i
    discount = tf.where(ahead >= 0, tf.pow(gamma, tf.maximum(ahead, 0.0)), 0.0)
    final = -tf.cast(beta, tf.float32) * cross_entropy[:, None]
    to_end = tf.pow(gamma, tf.cast(count, tf.float32) - steps)
    return bonus @ discount + final * to_end


def policy_gradient_loss(
    gate_logits: tf.Tensor, gates: tf.Tensor, returns: tf.Tensor
) -> tf.Tensor:
    """REINFORCE surrogate loss of the gates (Eq. 6).

    `mean over images of sum{ -log p(g[i]) * R[i] : i = 1..N }`, with R held
    constant; its gradient is the policy gradient.

    Args:
        gate_logits: Float tensor `(batch, gates)`, log-odds of executing.
        gates: Float tensor `(batch, gates)`, sampled decisions, 0 or 1.
        returns: Float tensor `(batch, gates)`, see `returns`.

    Returns:
        Float32 scalar.

    Raises:
        ValueError: If the three shapes differ.
    """
    gate_logits = tf.cast(gate_logits, tf.float32)
    gates = tf.stop_gradient(tf.cast(gates, tf.float32))
    returns = tf.stop_gradient(tf.cast(returns, tf.float32))
    _check_rank("gate_logits", gate_logits, 2, "(batch, gates)")
    for name, value in (("gates", gates), ("returns", returns)):
        _check_rank(name, value, 2, "(batch, gates)")
        _check_equal(name, value, gate_logits, 2)
    surprise = tf.nn.sigmoid_cross_entropy_with_logits(
        labels=gates, logits=gate_logits
    )
    return tf.reduce_mean(tf.reduce_sum(surprise * returns, axis=1))


def entropy(gate_logits: tf.Tensor) -> tf.Tensor:
    """How undecided the gates are.

    `mean over images of sum{ H(p[i]) : i = 1..N }`, H the entropy of running
    the block with probability p, both sides of it.

    Args:
        gate_logits: Float tensor `(batch, gates)`, log-odds of executing.

    Returns:
        Float32 scalar in nats, at most `N * log(2)`.

    Raises:
        ValueError: If the shape does not fit.
    """
    gate_logits = tf.cast(gate_logits, tf.float32)
    _check_rank("gate_logits", gate_logits, 2, "(batch, gates)")
    each = tf.nn.sigmoid_cross_entropy_with_logits(
        labels=tf.sigmoid(gate_logits), logits=gate_logits
    )
    return tf.reduce_mean(tf.reduce_sum(each, axis=1))


def class_action_loss(
    logits: tf.Tensor, classes: tf.Tensor, rewards: tf.Tensor
) -> tf.Tensor:
    """REINFORCE surrogate loss of a sampled class prediction.

    In pure reinforcement learning (Sec. 4.3) the prediction is one more
    action: `mean over images of -log p(class) * R`, with R held constant.

    Args:
        logits: Float tensor `(batch, classes)`.
        classes: Int tensor `(batch,)`, the sampled predictions.
        rewards: Float tensor `(batch,)`.

    Returns:
        Float32 scalar.

    Raises:
        ValueError: If the shapes do not fit.
    """
    logits = tf.cast(logits, tf.float32)
    classes = tf.convert_to_tensor(classes)
    rewards = tf.stop_gradient(tf.cast(rewards, tf.float32))
    _check_rank("logits", logits, 2, "(batch, classes)")
    for name, value in (("classes", classes), ("rewards", rewards)):
        _check_rank(name, value, 1, "(batch,)")
        _check_equal(name, value, logits, 1)
    surprise = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=classes, logits=logits
    )
    return tf.reduce_mean(surprise * rewards)


def target_rate_loss(
    rates: tf.Tensor, target: float | Sequence[float]
) -> tf.Tensor:
    """How far each block is from running for its share of the images.

    `mean over gates of (target - rate)^2`.

    Args:
        rates: Float tensor `(gates,)`, share of images that run each block.
        target: Float in [0, 1], or a sequence of one for each gate.

    Returns:
        Float32 scalar.

    Raises:
        ValueError: If `target` is neither one number nor one for each gate.

    Reference:
        - [Veit and Belongie, 2018](https://arxiv.org/abs/1711.11503)
    """
    rates = tf.cast(rates, tf.float32)
    target = tf.constant(target, tf.float32)
    _check_rank("rates", rates, 1, "(gates,)")
    if target.shape.rank and target.shape != rates.shape:
        raise ValueError(
            f"`target` must be a number or one per gate, {rates.shape[0]}. "
            f"Received: target of shape {tuple(target.shape)}"
        )
    return tf.reduce_mean(tf.square(target - rates))


def budget_loss(
    rates: tf.Tensor,
    target: float,
    fixed: float | tf.Tensor,
    costs: tf.Tensor,
    tightness: float | tf.Tensor,
) -> tf.Tensor:
    """How far a network is from its budget, and blocks outside their bounds.

    `(fixed + sum of rate * cost - target)^2`, plus the mean over gates of the
    squared distance of each rate from the interval
    `[tightness * even, 1 - tightness * (1 - even)]`, where `even` is the rate
    at which the budget is met if all blocks run equally often. Bounds keep the
    first gates that learn from closing for good and paying for all others.

    Args:
        rates: Float tensor `(gates,)`, share of images that run each block.
        target: Float in (0, 1], the multiply-adds to spend, relative to those
            of the network without gates, as are the other two.
        fixed: Float, what every image pays.
        costs: Float tensor `(gates,)`, what each block costs.
        tightness: Float in [0, 1]: at 1 all blocks are to run equally often,
            at 0 there are no bounds.

    Returns:
        Float32 scalar.

    Raises:
        ValueError: If the shapes do not fit.

    Reference:
        - [Verelst and Tuytelaars, 2020](https://arxiv.org/abs/1912.03203)
    """
    rates = tf.cast(rates, tf.float32)
    costs = tf.cast(costs, tf.float32)
    _check_rank("rates", rates, 1, "(gates,)")
    _check_rank("costs", costs, 1, "(gates,)")
    _check_equal("costs", costs, rates, 1)
    spent = fixed + tf.reduce_sum(rates * costs)
    even = (target - fixed) / tf.reduce_sum(costs)
    even = tf.clip_by_value(even, 0.0, 1.0)
    above = tf.nn.relu(rates - (1.0 - tightness * (1.0 - even)))
    below = tf.nn.relu(tightness * even - rates)
    outside = tf.square(above) + tf.square(below)
    return tf.square(spent - target) + tf.reduce_mean(outside)


def check_affordable(name: str, target: float, fixed: tf.Tensor) -> None:
    """Raises `ValueError` if no decisions can spend as little as `target`.

    Args:
        name: String, the argument that asks for it.
        target: Float, the multiply-adds to spend, relative to those of the
            network without gates.
        fixed: Float scalar, what every image pays, likewise; unknown in a
            graph for images of any size, which is then not checked.
    """
    known = tf.get_static_value(fixed)
    if known is not None and known >= target:
        raise ValueError(
            f"`{name}` must be above what is spent with all blocks "
            f"skipped, {known:.3f} of the multiply-adds. "
            f"Received: {name}={target}"
        )


def distillation_loss(
    logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    temperature: float | tf.Tensor = 4.0,
) -> tf.Tensor:
    """How far a student's softened predictions are from its teacher's.

    `T^2 * mean over images of KL(softmax(teacher / T) || softmax(logits / T))`
    with the teacher held constant. Without `T^2` the gradient would shrink as
    the temperature grows.

    Args:
        logits: Float tensor `(batch, classes)`, the student's.
        teacher_logits: Float tensor `(batch, classes)`.
        temperature: Float T above 0. Defaults to `4.0`.

    Returns:
        Float32 scalar in nats.

    Raises:
        ValueError: If the two shapes differ.

    Reference:
        - [Hinton et al., 2015](https://arxiv.org/abs/1503.02531), Sec. 2
    """
    logits = tf.cast(logits, tf.float32)
    teacher_logits = tf.stop_gradient(tf.cast(teacher_logits, tf.float32))
    _check_rank("logits", logits, 2, "(batch, classes)")
    _check_rank("teacher_logits", teacher_logits, 2, "(batch, classes)")
    _check_equal("teacher_logits", teacher_logits, logits, 2)
    student = tf.nn.log_softmax(logits / temperature)
    teacher = tf.nn.log_softmax(teacher_logits / temperature)
    divergence = tf.reduce_sum(tf.exp(teacher) * (teacher - student), axis=1)
    return temperature**2 * tf.reduce_mean(divergence)


def _check_rank(name, value, rank, expected):
    if value.shape.rank != rank:
        raise ValueError(
            f"`{name}` must have shape {expected}. "
            f"Received: {name} of shape {value.shape}"
        )


def _check_equal(name, value, other, dimensions):
    expected = other.shape[:dimensions]
    if not value.shape[:dimensions].is_compatible_with(expected):
        raise ValueError(
            f"`{name}` must begin with the dimensions {expected}. "
            f"Received: {name} of shape {value.shape}"
        )
