"""Gates that learn what the gates of a trained network decide.

Rewards say little of a single decision: whether an image needs one more block
shows in its loss only, among the noise of all other decisions, and before gates
have found it a price has closed most blocks for all images alike. A network
whose gates ask its classifier (`skipnet_tf.confidence`) knows it at once. Gates
of any kind are shown its decisions here, block by block, and rewards go on
from there.
"""

import keras
import tensorflow as tf

from skipnet_tf import objectives
from skipnet_tf import ops
from skipnet_tf import policy
from skipnet_tf.stages import Stage


@keras.saving.register_keras_serializable(package="skipnet_tf")
class Imitation(Stage):
    """Gates that learn by example; all other weights stay as they are.

    Images take the path that the teacher decides on at its threshold, and the
    gates met there learn to decide the same:
    `mean over images of sum{ -log p(decision i) : i = 1..N }`, which is
    behavioural cloning, or REINFORCE with returns of 1. The backbone should be
    the teacher's, or the decisions mean nothing to it.

    The teacher is used as in inference, and is no part of what is saved: a
    reloaded model is to be compiled with another stage. Under a `tf.distribute`
    strategy, make it in its scope.

    Args:
        teacher: `SkipNet` with as many gates, for images of as many channels.
            Defaults to `None`, for a stage that does not train.
        seed: Int; nothing is drawn. Defaults to `0`.
        execution: `"masked"` or `"conditional"`, see `HybridReinforce`.
            Defaults to `"masked"`.

    Raises:
        ValueError: In `compile`, if the teacher does not fit the network or,
            with `jit_compile`, computes only what it decides to; or at the
            first training step if there is none.

    Reference:
        - [Pomerleau, 1991](https://doi.org/10.1162/neco.1991.3.1.88),
          behavioural cloning
    """

    supervises = False
    gates_alone = True

    def __init__(self, teacher=None, seed: int = 0, execution: str = "masked"):
        super().__init__(seed)
        self.teacher = teacher
        self.execution = ops.check_execution(execution)

    def check_model(self, network, jit_compile):
        if self.teacher is None:
            return
        ours, theirs = _interface(network), _interface(self.teacher)
        if ours != theirs:
            raise ValueError(
                "`teacher` must be a SkipNet with {} gates for images of {} "
                "channels. Received: a network with {} gates for {} "
                "channels".format(*ours, *theirs)
            )
        if jit_compile and self.teacher.execution == "conditional":
            raise ValueError(
                '`teacher` must have execution="masked" under XLA, which has '
                "no shapes that depend on decisions. Received: "
                f"{jit_compile=} and execution={self.teacher.execution!r}"
            )

    def policy(self, seed, images):
        if self.teacher is None:
            raise ValueError(
                "`teacher` must be given to train: it is not saved with the "
                "network. Received: teacher=None"
            )
        decisions = self.teacher.route(images, training=False)["gates"]
        return policy.Forced(tf.stop_gradient(decisions))

    def policy_terms(self, routed, cross_entropy, step, seed):
        gates = routed["gates"]
        return {
            "policy_loss": objectives.policy_gradient_loss(
                routed["gate_logits"], gates, tf.ones_like(gates)
            )
        }

    def total(self, supervised, policy_loss, step):
        return policy_loss

    def get_config(self):
        return {**super().get_config(), "execution": self.execution}


def read_classifier(network: keras.Model, scale: float = 0.5) -> int:
    """Makes gates of the last group read what the classifier would say.

    There the classifier can be asked before the last block. What reads a
    gate's features, random in a new network, becomes the classifier: gates
    then see scores of classes, and how sure these are holds for images that
    were never seen, where other features they could go by were learnt by heart.
    Recurrent gates and those without convolution have such a layer; it goes on
    learning.

    Args:
        network: `SkipNet` with new gates and a trained classifier.
        scale: Float, of the classifier's weights in the gate, so that sigmoids
            are not at their ends. Defaults to `0.5`.

    Returns:
        Int, how many gates read it: none if they have convolutions, or fewer
        units than there are classes.
    """
    classifier = network.backbone.classifier
    classes = network.num_classes
    asked = network.gates[len(network.gates) + 1 - network.groups[-1] :]
    able = [
        gate.projection
        for gate in asked
        if getattr(gate, "units", 0) >= classes
    ]
    for projection in able:
        for ours, theirs in zip(projection.weights, classifier.weights):
            value = ours.numpy()
            value[..., :classes] = scale * theirs.numpy()
            ours.assign(value)
    return len(able)


def _interface(network):
    """Numbers of gates and of input channels."""
    gates = getattr(network, "gates", ())
    return len(gates), network.get_config()["input_shape"][-1]
