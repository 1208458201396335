"""Images per second that a data set delivers, with nobody training.

    python benchmarks/input_pipeline.py --dataset=cifar10 \
        --split='train[:90%]' --data_dir=~/tensorflow_datasets
    python benchmarks/input_pipeline.py --dataset=imagenet2012 \
        --image_size=224 --threads=8 --batches=20

Shuffled, augmented and normalised batches, as in training, batches as in
evaluation, and encoded images that are read only.  Training waits for its
input only if it would take more images than this in the same time.
"""

import statistics
import sys
import time

import tensorflow as tf
from absl import app
from absl import flags

from skipnet_tf import data
from skipnet_tf import sources


def main(argv):
    del argv
    values = flags.FLAGS
    arguments = {"image_size": values.image_size, "threads": values.threads}
    place = values.dataset, values.split, values.data_dir, values.batch
    size = values.batches, values.rounds
    try:
        found = {
            "training": images_per_second(
                *place, *size, service=values.service, **arguments
            ),
            "evaluation": _speed(
                data.load(
                    *place[:2],
                    data_dir=values.data_dir,
                    batch_size=values.batch,
                    **arguments,
                ),
                *place[3:],
                *size,
            ),
            "reading": _speed(_encoded(*place), values.batch, *size),
        }
    except (ValueError, OSError, tf.errors.OpError) as error:
        sys.exit(f"error: {error}")
    for name, speed in found.items():
        print(f"{name:10} {speed:10,.0f} images/s")


def images_per_second(
    dataset: str,
    split: str,
    data_dir: str | None,
    batch: int,
    batches: int,
    rounds: int,
    **arguments,
) -> float:
    """Reads the first batches of training several times.

    Args:
        dataset: String, what `data.load` knows.
        split: String in TFDS's notation.
        data_dir: Optional string, folder of prepared data sets.
        batch: Positive int, images in a batch.
        batches: Positive int, batches of a round.
        rounds: Positive int.
        **arguments: Further arguments of `data.load`.

    Returns:
        Float, the median of the rounds.

    Raises:
        ValueError: If there is no such data.
    """
    info = data.describe(dataset, split, data_dir)
    # One batch more than is timed: the first one starts the threads.
    epochs = 1 + -(-(batches + 1) * batch // info.num_examples)
    source = data.load(
        dataset,
        split,
        batch_size=batch,
        training=True,
        epochs=epochs,
        data_dir=data_dir,
        **arguments,
    )
    return _speed(source, batch, batches, rounds)


def _encoded(dataset, split, data_dir, batch):
    recipe = data.preprocessing_of(dataset)
    source = sources.open_split(recipe, split, data_dir, False, (0, 1))
    # In the order of training: file after file is quicker.
    examples = source.examples(tf.constant(0, tf.int64)).repeat()
    return examples.map(lambda image, *_: source.read(image)).batch(batch)


def _speed(source, batch, batches, rounds):
    """The median; a shorter data set makes shorter rounds."""
    speeds = []
    for _ in range(rounds):
        iterator = iter(source.repeat())
        next(iterator)
        start = time.perf_counter()
        for _ in range(batches):
            next(iterator)
        speeds.append(batches * batch / (time.perf_counter() - start))
    return statistics.median(speeds)


if __name__ == "__main__":
    flags.DEFINE_string("dataset", "digits", "What data.load knows.")
    flags.DEFINE_string("split", "train", "Split in TFDS's notation.")
    flags.DEFINE_string("data_dir", None, "Folder of prepared data sets.")
    flags.DEFINE_integer("batch", 128, "Images in a batch.", lower_bound=1)
    flags.DEFINE_integer("batches", 200, "Batches of a round.", lower_bound=1)
    flags.DEFINE_integer(
        "rounds", 7, "Times the first batches are read.", lower_bound=1
    )
    flags.DEFINE_integer("image_size", None, "Side of a photograph in pixels.")
    flags.DEFINE_integer("threads", -1, "Threads; -1: what TensorFlow tunes.")
    flags.DEFINE_string("service", None, "Address of a tf.data service.")
    app.run(main)
