"""The trainers in the process of the tests, with tiny settings."""

import functools

import common_flags
import shared
from absl import flags

TINY = [
    "--depth=8",
    "--batch_size=32",
    "--train_split=train[:100]",
    "--validation_split=train[100:150]",
    "--test_split=",
    "--base_steps=4",
    "--sp_steps=4",
    "--hrl_steps=4",
]


@functools.cache
def define():
    """Flags are defined once in a process."""
    common_flags.define(
        depth=8,
        base_steps=4,
        sp_steps=4,
        hrl_steps=4,
        batch_size=32,
        alpha=0.1,
        rl_weight=1.28,
        learning_rate=0.1,
        hrl_learning_rate=0.01,
        schedule="cosine",
        hrl_schedule="constant",
        train_split="train[:100]",
        validation_split="train[100:150]",
        test_split="",
    )


def parse(*arguments):
    define()
    flags.FLAGS.unparse_flags()
    for name in list(flags.FLAGS):
        flags.FLAGS[name].unparse()
    flags.FLAGS(["test", *arguments])


def train(workdir, *arguments, dataset="digits"):
    parse(f"--workdir={workdir}", *TINY, *arguments)
    shared.train(dataset)
