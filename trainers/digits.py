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
        base_steps=600,
        sp_steps=600,
        hrl_steps=500,
        batch_size=64,
        learning_rate=0.1,
        hrl_learning_rate=0.05,
        schedule="cosine",
        hrl_schedule="cosine",
        train_split="train[:85%]",
        validation_split="train[85%:]",
        test_split="test",
    )
    shared.run(main)
