"""Does skipping save time? SavedModels against dense ones and other runtimes.

    python benchmarks/inference.py --networks=resnet110 --out=results
    python benchmarks/inference.py --from_json --out=results

Decisions are imposed, and the gates computed all the same. Writes
`inference_<network>.json`, and a table and pictures of all results in --out.
Everything runs on the processor.
"""

import concurrent.futures
import multiprocessing
import os
import sys
import tempfile

import common
import measuring
import networks
import peers
import report
import tensorflow as tf
from absl import app
from absl import flags
from absl import logging

from skipnet_tf.frozen import PRECISIONS

_NETWORKS = flags.DEFINE_list(
    "networks",
    ["resnet110", "resnet50", "resnet101"],
    "Networks: resnet110 at 32x32, resnet50 and resnet101 at 224x224 pixels.",
)
_BATCHES = flags.DEFINE_list(
    "batches",
    None,
    "Images in a call. Defaults to 1,8,32,128, and at 224x224 to 1,8,32.",
)
_OPEN = flags.DEFINE_list(
    "open", [0, 25, 50, 75, 100], "Gates open, in per cent of all."
)
_PRECISIONS = flags.DEFINE_list(
    "precisions", ["float32", "bfloat16"], "Precisions of the convolutions."
)
_PEERS = flags.DEFINE_list(
    "peers",
    ["onnxruntime", "openvino"],
    "Other runtimes for the dense network; empty for none.",
)

_THREADS = flags.DEFINE_list(
    "threads", [1, 2], "Numbers of threads, each in a process of its own."
)
_REPEATS = flags.DEFINE_integer(
    "repeats", 200, "Most rounds of a batch.", lower_bound=1
)
_SECONDS = flags.DEFINE_float(
    "seconds",
    75,
    "A batch begins no further round after this, if it has had five.",
    lower_bound=0,
)

_OUT = flags.DEFINE_string(
    "out", "benchmarks/results", "Folder for results, table and pictures."
)
_CACHE = flags.DEFINE_string(
    "cache",
    os.path.join(tempfile.gettempdir(), "skipnet_tf_benchmarks"),
    "Folder that keeps the exported networks for the next time.",
)
_FROM_JSON = flags.DEFINE_bool(
    "from_json", False, "Measure nothing; table and pictures of --out only."
)


def main(argv):
    del argv
    try:
        if not _FROM_JSON.value:
            _measure_all()
        print(*report.write(_OUT.value), sep="\n")
    except (ValueError, ImportError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


def _measure_all():
    common.use_processor()
    for flag, known in (
        (_NETWORKS, networks.NETWORKS),
        (_PRECISIONS, PRECISIONS),
        (_PEERS, peers.PACKAGES),
    ):
        common.check_choices(flag, known)
    every_threads = common.numbers(_THREADS, 1, 1024)
    batches = common.numbers(_BATCHES, 1, 65536)
    shares = common.numbers(_OPEN, 0, 100)
    os.makedirs(_OUT.value, exist_ok=True)
    others = common.installed({p: peers.PACKAGES[p] for p in _PEERS.value})
    machine = common.machine(("tensorflow", *others))
    print(", ".join(machine.values()))
    for name in _NETWORKS.value:
        print(name, file=sys.stderr)
        network = networks.NETWORKS[name]
        folder = os.path.join(_CACHE.value, networks.digest(), name)
        paths, converted = _in_child(
            _prepare, network, _PRECISIONS.value, others, folder
        )
        rows = []
        for threads in every_threads:
            plan = measuring.Plan(
                size=network.size,
                paths=paths,
                peers=converted,
                threads=threads,
                batches=batches or network.batches,
                shares=shares,
                repeats=_REPEATS.value,
                seconds=_SECONDS.value,
            )
            rows += _in_child(measuring.measure, plan)
        result = {"network": name, "machine": machine, "rows": rows}
        print(common.save(_OUT.value, "inference", result))


def _in_child(function, *arguments):
    """Calls a function in a process of its own.

    There it is the first to start TensorFlow's threads, and takes them along.
    """
    with concurrent.futures.ProcessPoolExecutor(
        max_workers=1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_be_quiet,
    ) as pool:
        return pool.submit(function, *arguments).result()


def _be_quiet():
    # TensorFlow describes the files it writes, page after page.
    logging.set_verbosity(logging.ERROR)
    tf.get_logger().setLevel("ERROR")


def _prepare(network, precisions, others, folder):
    """Paths of our SavedModels by precision, and of the peers' networks."""
    paths = {
        precision: networks.export(
            network, precision, os.path.join(folder, precision)
        )
        for precision in precisions
    }
    dense = None
    if others:
        # Peers take float32, and round it themselves.
        dense = networks.export(
            network, "float32", os.path.join(folder, "float32")
        )["dense"]
    return paths, {peer: peers.convert(peer, dense) for peer in others}


if __name__ == "__main__":
    app.run(main)
