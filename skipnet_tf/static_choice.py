"""The best choice of blocks that is the same for every image.

A policy that looks at its images has to beat it: otherwise a smaller network
would do. The static network needs no gates, and none are counted.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from skipnet_tf import evaluation
from skipnet_tf import flops
from skipnet_tf.recalibration import recalibrated
from skipnet_tf.skipnet import SkipNet
from skipnet_tf.static_search import Mask
from skipnet_tf.static_search import Search


@dataclasses.dataclass(frozen=True)
class StaticChoice:
    """Blocks executed for every image, and what they give.

    Attributes:
        mask: Tuple of `gates` ints, 1 executed, 0 skipped.
        macs: Int, multiply-adds of each image, without gates.
        accuracy: Float, share of right predictions where it was selected.
        cross_entropy: Float, mean in nats where it was selected.
        recalibrated_accuracy: Optional float, `accuracy` with statistics of
            batch normalisation estimated for this choice; `None` where there
            was nothing to estimate them on.
    """

    mask: Mask
    macs: int
    accuracy: float
    cross_entropy: float
    recalibrated_accuracy: float | None

    @property
    def best_accuracy(self) -> float:
        """The better of the two."""
        return max(self.accuracy, self.recalibrated_accuracy or 0.0)


def best_static_choice(
    model: SkipNet,
    dataset: tf.data.Dataset,
    macs: float,
    images: int = 2000,
    calibration: tf.data.Dataset | None = None,
) -> StaticChoice:
    """Finds the blocks that serve all images best at a given cost.

    From all blocks, the one that is missed least is taken away until the rest
    is cheap enough. A local search starts there, or at the blocks that the
    policy executes most often if they are better: a block is added, taken
    away or exchanged for another as long as that helps. The search goes by
    cross-entropy, which tells apart choices that a few thousand images give
    the same accuracy and knows less of luck; start, end and the policy's
    blocks are then compared by accuracy on the whole of `dataset`.

    Args:
        model: A trained `SkipNet`.
        dataset: Batches of normalised images and labels to select on; not
            those that the choice is tested on.
        macs: Float, most multiply-adds per image.
        images: Positive int, the search uses so many images of `dataset`.
            Defaults to `2000`.
        calibration: Optional batches of images and labels, all of which
            estimate the statistics of batch normalisation anew for each
            choice that is compared by accuracy. Defaults to `None`, the
            network's statistics alone.

    Returns:
        A `StaticChoice`.

    Raises:
        ValueError: If `model` has no gates, `images` is not positive, or no
            choice is as cheap as `macs`.
    """
    if not isinstance(model, SkipNet):
        raise ValueError(f"`model` must be a SkipNet. Received: {model!r}")
    static = _Static(model, dataset)
    fixed = static.count.fixed
    if macs < fixed:
        raise ValueError(
            f"`macs` must be at least {fixed}, what an image costs when every "
            f"gate is shut. Received: macs={macs}"
        )
    some = evaluation.some_images(dataset, images)
    search = Search(
        static.count.blocks,
        macs - fixed,
        functools.partial(static.cross_entropies, list(some)),
    )
    executed = search.fill(evaluation.collect(model, some).open_rates)
    starts = {executed, search.eliminate()}
    candidates = starts | {search.improve(search.best(starts))}
    found = [
        _measure(model, static, dataset, mask, calibration)
        for mask in sorted(candidates)
    ]
    return max(found, key=lambda c: (c.best_accuracy, -c.cross_entropy))


def accuracy_of(
    model: SkipNet,
    dataset: tf.data.Dataset,
    mask: Iterable[int],
    calibration: tf.data.Dataset | None = None,
) -> float:
    """Accuracy with the same blocks executed for every image.

    Args:
        model: A `SkipNet`.
        dataset: Batches of normalised images and labels.
        mask: `gates` ints, 1 executes a block, 0 skips it.
        calibration: Optional batches of images and labels that estimate the
            statistics of batch normalisation for this choice. Defaults to
            `None`, the network's own.

    Returns:
        Float, share of right predictions.

    Raises:
        ValueError: If `mask` is not a zero or one for each gate.
    """
    static = _Static(model, dataset)
    mask = tuple(mask)
    if len(mask) != len(static.steps) or not set(mask) <= {0, 1}:
        raise ValueError(
            f"`mask` must be {len(static.steps)} zeros and ones, one for each "
            f"gate. Received: mask={mask}"
        )
    mask = tuple(int(runs) for runs in mask)
    return float(_right(model, static, dataset, mask, calibration).mean())


def compare(
    model: SkipNet,
    dataset: tf.data.Dataset,
    choice: StaticChoice,
    calibration: tf.data.Dataset | None = None,
) -> dict:
    """What the policy gains over a static choice, on images of its own.

    Args:
        model: A `SkipNet`.
        dataset: Batches of normalised images and labels, others than those
            `choice` was selected on.
        choice: What `best_static_choice` returned.
        calibration: See `accuracy_of`. Defaults to `None`.

    Returns:
        Dict of JSON values: `dynamic`, an `evaluation.summary`; `static`,
        with `macs`, `macs_fraction`, `accuracy` and
        `recalibrated_accuracy`; `gain`, the accuracy of the policy minus the
        better one of the static choice, and its `standard_error`: both saw
        the same images, and only those that one of them gets wrong count.
    """
    routes = evaluation.collect(model, dataset)
    static = _Static(model, dataset)
    dense = static.count.dense
    versions = {"accuracy": _right(model, static, dataset, choice.mask)}
    if calibration is not None:
        versions["recalibrated_accuracy"] = _right(
            model, static, dataset, choice.mask, calibration
        )
    best = max(versions.values(), key=np.mean)
    gains = (routes.predictions == routes.labels).astype(float) - best
    return {
        "dynamic": evaluation.summary(routes, dense),
        "static": {
            "macs": choice.macs,
            "macs_fraction": choice.macs / dense,
            "recalibrated_accuracy": None,
            **{name: float(right.mean()) for name, right in versions.items()},
        },
        "gain": float(gains.mean()),
        "standard_error": float(gains.std() / len(gains) ** 0.5),
    }


def _measure(model, static, dataset, mask, calibration):
    better = None
    if calibration is not None:
        right = _right(model, static, dataset, mask, calibration)
        better = float(right.mean())
    return StaticChoice(
        mask=mask,
        macs=static.count.fixed + int(static.count.blocks @ np.array(mask)),
        accuracy=float(_right(model, static, dataset, mask).mean()),
        cross_entropy=static.cross_entropies(dataset, [mask])[mask],
        recalibrated_accuracy=better,
    )


def _right(model, static, dataset, mask, calibration=None):
    """Whether each image is right, `(images,)`."""
    statistics = contextlib.nullcontext()
    if calibration is not None:
        statistics = recalibrated(model, calibration, actions=mask)
    right = []
    with statistics:
        for images, labels in dataset:
            ((_, logits),) = static.logits(images, [mask])
            right.append(logits.numpy().argmax(axis=1) == labels.numpy())
    return np.concatenate(right)


class _Static:
    """A network block by block: choices share the maps that they can.

    Attributes:
        count: `flops.Count` at the images' size.
        steps: A pair of functions of maps for each gate, skip and run.
    """

    def __init__(self, model, dataset):
        evaluation.check_dataset(dataset)
        spec = dataset.element_spec[0]
        shape = spec.shape[1:]
        if not shape.is_fully_defined():
            shape = next(iter(dataset))[0].shape[1:]
        self.count = flops.count(model, tuple(shape))
        net = model.backbone
        spec = tf.TensorSpec([None, *spec.shape[1:]], spec.dtype)
        self._begin, spec = _traced(lambda x: net.blocks[0](net.stem(x)), spec)
        self.steps = []
        for block in net.blocks[1:]:
            skip, _ = _traced(block.shortcut, spec)
            run, spec = _traced(block, spec)
            self.steps.append((skip, run))
        self._head, _ = _traced(net.head, spec)

    def logits(
        self, images: tf.Tensor, masks: Iterable[Mask]
    ) -> Iterator[tuple[Mask, tf.Tensor]]:
        """Pairs of mask and logits `(batch, classes)`, in order of masks."""
        maps, last = [self._begin(images)], ()
        # Sorted, masks that begin alike follow one another.
        for mask in sorted(masks):
            same = [a == b for a, b in zip(last, mask)]
            common = [*same, False].index(False)
            del maps[common + 1 :]
            for step, runs in zip(self.steps[common:], mask[common:]):
                maps.append(step[runs](maps[-1]))
            yield mask, self._head(maps[-1])
            last = mask

    def cross_entropies(
        self,
        batches: Iterable[tuple[tf.Tensor, tf.Tensor]],
        masks: Collection[Mask],
    ) -> dict[Mask, float]:
        """Mean cross-entropy in nats of each mask."""
        totals, count = dict.fromkeys(masks, 0.0), 0
        for images, labels in batches:
            count += len(labels)
            for mask, logits in self.logits(images, masks):
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels, logits
                )
                totals[mask] += float(tf.reduce_sum(losses))
        return {mask: total / count for mask, total in totals.items()}


def _traced(function, spec):
    """A graph of `function`, and what comes out of it."""

    @tf.function(autograph=False, input_signature=[spec])
    def run(maps):
        return function(maps)

    graph = run.get_concrete_function()
    outputs = graph.structured_outputs
    return graph, tf.TensorSpec(outputs.shape, outputs.dtype)
