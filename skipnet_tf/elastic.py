"""Elastic depth: a network that is made to miss blocks before gates learn.

A dense network has never missed a block, so that a price of computation
closes the ones that matter least for every image alike, and the network learns
to do without them. Here it is trained at many depths first, from which gates
then choose.
"""

import numbers
from collections.abc import Sequence

import keras

from skipnet_tf import ops
from skipnet_tf import policy
from skipnet_tf.stages import Stage


@keras.saving.register_keras_serializable(package="skipnet_tf")
class Elastic(Stage):
    """Groups of blocks whose depth is drawn for each image.

    An image runs the first blocks of every group; how many is drawn for each
    group by itself, all numbers from `min_blocks` to the whole group being as
    likely. Gates have no say and stay as they are. At inference the thresholded
    policy decides, and gates that start open still run every block.

    Args:
        min_blocks: Positive int, fewest blocks that an image runs of each
            group, or a sequence of one for each group. Defaults to `1`.
        seed: Int, of the depths. Defaults to `0`.
        execution: `"masked"` or `"conditional"`, see `HybridReinforce`.
            Defaults to `"masked"`.

    Raises:
        ValueError: If an argument is not as described, or, in `compile`, if
            `min_blocks` does not fit the groups of the network.

    Reference:
        - [Cai et al., 2020](https://arxiv.org/abs/1908.09791), Sec. 3.3,
          elastic depth; there one depth for a batch
    """

    backbone_alone = True

    def __init__(
        self,
        min_blocks: int | Sequence[int] = 1,
        seed: int = 0,
        execution: str = "masked",
    ):
        super().__init__(seed)
        self.execution = ops.check_execution(execution)
        single = not hasattr(min_blocks, "__len__")
        each = [min_blocks] if single else list(min_blocks)
        if not each or not all(
            isinstance(least, numbers.Integral) and least >= 1 for least in each
        ):
            raise ValueError(
                "`min_blocks` must be a positive int, or one for each group. "
                f"Received: min_blocks={min_blocks!r}"
            )
        self.min_blocks = int(min_blocks) if single else [int(n) for n in each]

    def build(self, groups):
        least = self.min_blocks
        if isinstance(least, int):
            least = [least] * len(groups)
        if len(least) != len(groups) or any(
            few > blocks for few, blocks in zip(least, groups)
        ):
            raise ValueError(
                "`min_blocks` must be at most the blocks of each group, "
                f"{list(groups)}. Received: min_blocks={self.min_blocks}"
            )
        self._depths = tuple(zip(least, groups))

    def policy(self, seed, images):
        return policy.Elastic(self._depths, seed)

    def get_config(self):
        return {
            **super().get_config(),
            "min_blocks": self.min_blocks,
            "execution": self.execution,
        }
