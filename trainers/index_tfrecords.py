"""Counts the images of TFRecord files, once, for `--dataset=tfrecords`.

    python trainers/index_tfrecords.py --data_dir=~/imagenet_tfrecords \
        --class_names=labels.txt --first_label=1

The files are called as in `train-00000-of-01024` and hold the classic
ImageNet layout, "image/encoded" and "image/class/label".  The counts are
written beside them, as index.json; of each record only the length is read.
"""

import os

import shared
import tensorflow as tf
from absl import flags

from skipnet_tf import files


def main(argv):
    del argv
    values = flags.FLAGS
    folder = os.path.expanduser(values.data_dir)
    with tf.io.gfile.GFile(os.path.expanduser(values.class_names)) as file:
        names = [line.strip() for line in file if line.strip()]
    index = files.index_records(folder, names, values.first_label)
    files.write_index(folder, index)
    for split, counts in index.splits.items():
        print(f"{split}: {sum(counts.values())} images, {len(counts)} files")


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "Folder of the TFRecord files.")
    flags.DEFINE_string(
        "class_names", None, "Text file of one class name per line, by label."
    )
    flags.DEFINE_integer(
        "first_label", 1, "Label of the first class: 1 in the classic layout."
    )
    flags.mark_flags_as_required(["data_dir", "class_names"])
    shared.run(main)
