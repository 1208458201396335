"""Trains ResNet and SkipNet on CIFAR-10 or CIFAR-100 (Sec. 4.1).

The defaults are the paper's: 64,000 steps of base and of supervised
pre-training at 0.1, divided by ten at half and three quarters, then 10,000
steps of hybrid reinforcement learning at 0.0001.

    python trainers/cifar.py --workdir=runs/cifar10 \
        --flagfile=trainers/flagfiles/cifar10_rnn_38.txt
"""

import common_flags
import shared
from absl import flags

_DATASET = flags.DEFINE_enum(
    "dataset", "cifar10", ["cifar10", "cifar100"], "What to train on."
)


def define() -> None:
    """Defines the flags with this script's defaults."""
    common_flags.define(
        depth=38,
        base_steps=64_000,
        sp_steps=64_000,
        hrl_steps=10_000,
        batch_size=128,
        alpha=0.1,
        rl_weight=1.28,
        learning_rate=0.1,
        hrl_learning_rate=1e-4,
        schedule="step",
        hrl_schedule="constant",
        train_split="train[:90%]",
        validation_split="train[90%:]",
        test_split="test",
        checkpoint_steps=500,
    )


def dataset() -> str:
    """What to train on."""
    return _DATASET.value


def main(argv):
    del argv
    shared.train(dataset())


if __name__ == "__main__":
    define()
    shared.run(main)
