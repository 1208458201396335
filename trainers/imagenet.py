"""Trains ResNet and SkipNet on ImageNet or other photographs (Sec. 4.1).

The defaults are the paper's: 120 epochs of base and of supervised
pre-training at 0.1, divided by ten every 30 epochs, then 40 epochs of hybrid
reinforcement learning at 0.0001, divided by ten after 30.

    python trainers/imagenet.py --workdir=runs/imagenet \
        --flagfile=trainers/flagfiles/imagenet_rnn_101.txt
"""

import common_flags
import shared
from absl import flags

_DATASET = flags.DEFINE_string(
    "dataset",
    "imagenet2012",
    "A TFDS data set of photographs, image_folder (--data_dir/split/class/"
    "file) or tfrecords (--data_dir/split-*, see index_tfrecords.py).",
)


def define() -> None:
    """Defines the flags with this script's defaults."""
    common_flags.define(
        depth=101,
        stride_on="3x3",
        base_epochs=120,
        sp_epochs=120,
        hrl_epochs=40,
        batch_size=256,
        alpha=0.01,
        beta="alpha/N",
        rl_weight=1.0,
        learning_rate=0.1,
        hrl_learning_rate=1e-4,
        schedule="step",
        milestones=["0.25", "0.5", "0.75"],
        hrl_schedule="step",
        hrl_milestones=["0.75"],
        # The labels of ImageNet's test images are secret.
        train_split="train[:99%]",
        validation_split="train[99%:]",
        test_split="validation",
        checkpoint_steps=1000,
    )


def dataset() -> str:
    """What to train on."""
    return _DATASET.value


def main(argv):
    del argv
    shared.train(dataset(), "imagenet")


if __name__ == "__main__":
    define()
    shared.run(main)
