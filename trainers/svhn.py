"""Trains ResNet and SkipNet on SVHN (Sec. 4.1).

The paper trains on train and extra together, 604,388 images, without
augmentation, and gives the policy 50 epochs. It refers to stochastic depth
(Huang et al., 2016) for the rest: 50 epochs at 0.1, divided by ten after 30
and 35.

    python trainers/svhn.py --workdir=runs/svhn \
        --flagfile=trainers/flagfiles/svhn_rnn_110.txt
"""

import common_flags
import shared


def define() -> None:
    """Defines the flags with this script's defaults."""
    common_flags.define(
        depth=110,
        base_epochs=50,
        sp_epochs=50,
        hrl_epochs=50,
        batch_size=128,
        alpha=0.1,
        rl_weight=1.28,
        learning_rate=0.1,
        hrl_learning_rate=1e-4,
        schedule="step",
        milestones=["0.6", "0.7"],
        hrl_schedule="constant",
        train_split="train[6000:]+extra",
        validation_split="train[:6000]",
        test_split="test",
        checkpoint_steps=1000,
    )


def dataset() -> str:
    """What to train on."""
    return "svhn_cropped"


def main(argv):
    del argv
    shared.train(dataset())


if __name__ == "__main__":
    define()
    shared.run(main)
