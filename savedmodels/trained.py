"""What the scripts here take from the work directory of a trainer."""

import json
import os
import re
import sys

from skipnet_tf.runs import Run

# Where things were on one machine says nothing on another.
_PLACES = ("--workdir=", "--data_dir=")
_ABSOLUTE = re.compile(r'(?<=[=",])/(?:[^/"\s]+/)*(?=[^/"\s]+)')


def stage_of(run: Run, name: str | None) -> str:
    """A finished stage.

    Args:
        run: The work directory.
        name: Optional string; `None` for the last one.

    Returns:
        String.

    Raises:
        ValueError: If it is not finished.
    """
    stage = name or list(run.summaries)[-1]
    if stage not in run.summaries:
        raise ValueError(
            f"--stage={stage} is not finished in --workdir={run.workdir}, "
            f"which has {', '.join(run.summaries)}"
        )
    return stage


def class_names(run: Run) -> tuple[str, ...]:
    """Names of the classes; none, with a word about it, without the data."""
    try:
        return run.describe().class_names
    except (ValueError, ImportError) as error:
        print(f"class names are left out: {error}", file=sys.stderr)
        return ()


def card(run: Run, stage: str) -> dict:
    """What `model_card.json` says of the training."""
    facts = {
        "data_set": run.dataset,
        "stage": stage,
        "results": {run.split: run.summaries[stage]},
    }
    path = os.path.join(run.workdir, "flags.txt")
    if os.path.exists(path):  # not in a run of one's own code
        facts["flags"] = portable(path).splitlines()
    return facts


def result(run: Run) -> dict:
    """`result.json` of the run, without where its data were."""
    found = json.loads(portable(os.path.join(run.workdir, "result.json")))
    found.pop("data_dir", None)
    return found


def portable(path: str) -> str:
    """A text file of a run; of absolute paths in it, the last part."""
    with open(path) as file:
        lines = file.readlines()
    kept = [line for line in lines if not line.startswith(_PLACES)]
    return _ABSOLUTE.sub("", "".join(kept))
