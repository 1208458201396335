"""Where the time of a training step goes, operation by operation.

    python benchmarks/profile_step.py --contender=conditional --percent=50

Prints the milliseconds that each kind of operation takes in one step. On
several threads operations overlap: their sum exceeds the step.
"""

import collections
import statistics
import time

import architectures
import common
import report
from absl import app
from absl import flags

_WARM_UP = 10  # steps: kernels for most numbers of rows are there then
_KINDS = ("dense", "sp", "masked", "conditional", "keras")

_NETWORK = flags.DEFINE_enum(
    "network", "resnet38", list(architectures.NETWORKS), "What to train."
)
_PRECISION = flags.DEFINE_enum(
    "precision", "float32", list(architectures.POLICIES), "Of the layers."
)
_CONTENDER = flags.DEFINE_enum(
    "contender", "dense", _KINDS, "How, see training.py."
)
_PERCENT = flags.DEFINE_integer(
    "percent",
    50,
    "Images that run a gated block, in per cent, of masked and conditional.",
    lower_bound=0,
    upper_bound=100,
)
_BATCH = flags.DEFINE_integer(
    "batch", None, "Images in a step. Defaults to that of training.py."
)
_THREADS = flags.DEFINE_integer("threads", 2, "Threads.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 8, "Steps to average.", lower_bound=1)
_TOP = flags.DEFINE_integer("top", 16, "Lines to print.", lower_bound=1)


def main(argv):
    del argv
    common.use_processor()
    # Imported here: TensorFlow reads the environment when it is loaded.
    import steps

    network = architectures.NETWORKS[_NETWORK.value]
    training = steps.build(
        network,
        _PRECISION.value,
        _CONTENDER.value,
        _PERCENT.value,
        _BATCH.value or network.batch,
        _THREADS.value,
    )
    taken, spent, calls = _measure(training.step)
    print(
        f"{_NETWORK.value}, {_CONTENDER.value}, {_PRECISION.value}: "
        f"{taken:.1f} ms a step, {sum(calls.values()):.0f} operations\n"
    )
    lines = [
        [name, f"{milliseconds:.1f}", f"{calls[name]:.0f}"]
        for name, milliseconds in spent.most_common(_TOP.value)
    ]
    print(report.table(["operation", "ms", "calls"], lines))


def _measure(step):
    """Milliseconds of a step, and of, and calls of, each kind of operation."""
    import tracing

    for _ in range(_WARM_UP):
        step()
    times = []
    for _ in range(2 * _STEPS.value):
        start = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - start))
    spent, calls = collections.Counter(), collections.Counter()
    for _ in range(_STEPS.value):
        for name, milliseconds in tracing.operations(step):
            spent[name] += milliseconds / _STEPS.value
            calls[name] += 1 / _STEPS.value
    return statistics.median(times), spent, calls


if __name__ == "__main__":
    app.run(main)
