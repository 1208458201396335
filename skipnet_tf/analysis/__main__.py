"""The command line of `skipnet_tf.analysis`."""

import argparse
import sys

import tensorflow as tf

from skipnet_tf import analysis


def main() -> None:
    """The command line; mistakes end in one line."""
    parser = argparse.ArgumentParser(
        description="Writes the report of a run, or compares runs."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--workdir", help="A trainer's, or a folder of runs.")
    what.add_argument("--compare", nargs="+", help="Workdirs side by side.")
    parser.add_argument("--out", required=True, help="Folder of the report.")
    parser.add_argument("--run", help="The run of a sweep to look at closely.")
    parser.add_argument(
        "--no_images",
        action="store_true",
        help="Show no image of the data set, whatever its licence.",
    )
    arguments = parser.parse_args()
    # Its warnings are about code, not about what the user asked for.
    tf.get_logger().setLevel("ERROR")
    try:
        if arguments.compare:
            path = analysis.compare(arguments.compare, arguments.out)
        else:
            path = analysis.draw_all(
                arguments.workdir,
                arguments.out,
                arguments.run,
                shows_images=not arguments.no_images,
            )
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"error: {error}")
    print(path)


if __name__ == "__main__":
    main()
