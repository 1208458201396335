"""What the tests of training share: a small network, data, one `fit`."""

import numpy as np
from cases import images
from cases import labels
from cases import skipnet

import skipnet_tf

IMAGES, LABELS = images(16, 4, 4, 3), labels(16)
HYBRID = {"alpha": 0.5, "rl_weight": 1.0}


def network(gate="rnn", **arguments):
    """Three blocks, two gates: small, for every `fit` traces a graph."""
    small = {"blocks": (1, 2), "filters": (4, 4)}
    return skipnet(gate, **{**small, **arguments})


def sgd(rate=0.1, momentum=0.0):
    """Without L2: what is left is easy to compute by hand."""
    return skipnet_tf.optimizers.SGD(rate, momentum=momentum, l2=0.0)


def fit(model, steps=1, **arguments):
    """Each step sees the same batch of eight images."""
    arguments = {"epochs": steps, "shuffle": False, **arguments}
    return model.fit(IMAGES[:8], LABELS[:8], 8, verbose=0, **arguments)


def same(one, other, **tolerance):
    """Whether two networks have equal, or close, weights."""
    pairs = list(zip(one.get_weights(), other.get_weights(), strict=True))
    if not tolerance:
        return all(np.array_equal(a, b) for a, b in pairs)
    return all(np.allclose(a, b, **tolerance) for a, b in pairs)
