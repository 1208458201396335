"""Trains ResNet and SkipNet on scikit-learn's handwritten digits.

Real 8x8 scans that need no download: the fastest way to see every stage.

    python trainers/digits.py --workdir=runs/digits
"""

import common_flags
import shared


def main(argv):
    del argv
    shared.train("digits")


if __name__ == "__main__":
    common_flags.define(
        depth=20,
        base_steps=500,
        # Half as long as base: these digits are easy, and a network that
        # makes no mistakes any more has no reason to tell them apart.
        sp_steps=250,
        hrl_steps=600,
        batch_size=64,
        # A high price and a strong policy gradient for the short schedule, a
        # low learning rate for the network under it.
        alpha=2.0,
        rl_weight=5.0,
        learning_rate=0.1,
        hrl_learning_rate=0.01,
        schedule="cosine",
        hrl_schedule="cosine",
        train_split="train[:85%]",
        validation_split="train[85%:]",
        test_split="test",
    )
    shared.run(main)
