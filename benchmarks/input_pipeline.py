"""Images per second that a data set delivers, with nobody training.

    python benchmarks/input_pipeline.py --dataset=cifar10 \
        --split='train[:90%]' --data_dir=~/tensorflow_datasets

Shuffled, augmented and normalised batches, as in training. Training waits for
its input only if it would take more images than this in the same time.
"""

import statistics
import sys
import time

from absl import app
from absl import flags

from skipnet_tf import data


def main(argv):
    del argv
    values = flags.FLAGS
    try:
        speed = images_per_second(
            values.dataset,
            values.split,
            values.data_dir,
            values.batch,
            values.batches,
            values.rounds,
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{speed:,.0f} images/s")


def images_per_second(
    dataset: str,
    split: str,
    data_dir: str | None,
    batch: int,
    batches: int,
    rounds: int,
) -> float:
    """Reads the first batches of training several times.

    Args:
        dataset: String, what `data.load` knows.
        split: String in TFDS's notation.
        data_dir: Optional string, folder of prepared data sets.
        batch: Positive int, images in a batch.
        batches: Positive int, batches of a round.
        rounds: Positive int.

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
    )
    speeds = []
    for _ in range(rounds):
        iterator = iter(source)
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
    app.run(main)
