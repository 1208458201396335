"""Trains ResNet and SkipNet on scikit-learn's handwritten digits.

Real 8x8 scans that need no download: the fastest way to see every stage.

    python trainers/digits.py --workdir=runs/digits
"""

import common_flags
import shared


def define() -> None:
    """Defines the flags with this script's defaults."""
    common_flags.define(
        depth=20,
        base_steps=500,
        sp_steps=500,
        hrl_steps=1000,
        batch_size=64,
        # A weak policy gradient: these digits are easy, and gates that close
        # fast close for every image alike.
        alpha=0.7,
        rl_weight=0.3,
        learning_rate=0.1,
        hrl_learning_rate=0.04,
        schedule="cosine",
        hrl_schedule="cosine",
        train_split="train[:85%]",
        validation_split="train[85%:]",
        test_split="test",
    )


def dataset() -> str:
    """What to train on."""
    return "digits"


def main(argv):
    del argv
    shared.train(dataset())


if __name__ == "__main__":
    define()
    shared.run(main)
