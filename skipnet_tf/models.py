"""The networks of the paper (Sec. 4 "Models"): depths, gates, data sets."""

from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import GATES
from skipnet_tf.skipnet import SkipNet

_CIFAR_FILTERS = (16, 32, 64)
_IMAGENET_FILTERS = (64, 128, 256, 512)
_IMAGENET_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_FIRST_BOTTLENECK_DEPTH = 50
# The paper's feed-forward gate: FFGate-II past 100 layers, to save compute.
_FIRST_LIGHT_GATE_DEPTH = 100


def cifar_resnet(
    depth: int = 38,
    num_classes: int = 10,
    input_shape: tuple = (32, 32, 3),
    name: str | None = None,
) -> ResNet:
    """ResNet for CIFAR and SVHN: three groups of n blocks, 6n + 2 layers.

    Args:
        depth: Int, 6n + 2; the paper has 38, 74, 110 and 152. Defaults to
            `38`.
        num_classes: Positive int. Defaults to `10`.
        input_shape: Tuple `(height, width, channels)`; height and width may
            be `None`. Defaults to `(32, 32, 3)`.
        name: Optional string.

    Returns:
        A built `ResNet`.

    Raises:
        ValueError: If `depth` is not 6n + 2.
    """
    return ResNet(
        **_cifar(depth),
        num_classes=num_classes,
        input_shape=input_shape,
        name=name or f"resnet{depth}",
    )


def cifar_skipnet(
    depth: int = 38,
    gate: str = "rnn",
    num_classes: int = 10,
    input_shape: tuple = (32, 32, 3),
    gate_init: str = "open",
    threshold: float = 0.5,
    execution: str = "conditional",
    name: str | None = None,
) -> SkipNet:
    """SkipNet for CIFAR and SVHN: three groups of n blocks, 6n + 2 layers.

    Args:
        depth: Int, 6n + 2; the paper has 38, 74, 110 and 152. Defaults to
            `38`.
        gate: `"rnn"`, `"ff1"`, `"ff2"`, `"pool"`, `"confidence"`, or `"ff"`,
            the paper's choice for this depth. Defaults to `"rnn"`.
        num_classes: Positive int. Defaults to `10`.
        input_shape: Tuple `(height, width, channels)`; height and width may
            be `None`. Defaults to `(32, 32, 3)`.
        gate_init: `"open"` or `"published"`. Defaults to `"open"`.
        threshold: Float, a block runs at inference where its probability is
            at least this. Defaults to `0.5`.
        execution: `"conditional"` or `"masked"`. Defaults to
            `"conditional"`.
        name: Optional string.

    Returns:
        A built `SkipNet`.

    Raises:
        ValueError: If `depth` is not 6n + 2 or `gate` is unknown.
    """
    return SkipNet(
        **_cifar(depth),
        num_classes=num_classes,
        input_shape=input_shape,
        gate=_gate(gate, depth),
        gate_init=gate_init,
        threshold=threshold,
        execution=execution,
        name=name or f"skipnet{depth}_{gate}",
    )


def imagenet_resnet(
    depth: int = 50,
    num_classes: int = 1000,
    input_shape: tuple = (224, 224, 3),
    stride_on: str = "3x3",
    name: str | None = None,
) -> ResNet:
    """ResNet for ImageNet.

    Args:
        depth: 18, 34, 50, 101 or 152. Defaults to `50`.
        num_classes: Positive int. Defaults to `1000`.
        input_shape: Tuple `(height, width, channels)`; height and width may
            be `None`. Defaults to `(224, 224, 3)`.
        stride_on: `"3x3"` or `"1x1"`, the convolution of a bottleneck block
            (50 layers and up) that takes its stride: torchvision and the
            published networks have the first, `keras.applications` the
            second. Defaults to `"3x3"`.
        name: Optional string.

    Returns:
        A built `ResNet`.

    Raises:
        ValueError: If `depth` is unknown, or `stride_on` is not a kernel of its
            blocks.
    """
    return ResNet(
        **_imagenet(depth),
        num_classes=num_classes,
        input_shape=input_shape,
        stride_on=stride_on,
        name=name or f"resnet{depth}",
    )


def imagenet_skipnet(
    depth: int = 101,
    gate: str = "rnn",
    num_classes: int = 1000,
    input_shape: tuple = (224, 224, 3),
    gate_init: str = "open",
    threshold: float = 0.5,
    execution: str = "conditional",
    stride_on: str = "3x3",
    name: str | None = None,
) -> SkipNet:
    """SkipNet for ImageNet.

    Args:
        depth: 18, 34, 50, 101 or 152. Defaults to `101`.
        gate: `"rnn"`, `"ff1"`, `"ff2"`, `"pool"`, `"confidence"`, or `"ff"`,
            the paper's choice for this depth. Defaults to `"rnn"`.
        num_classes: Positive int. Defaults to `1000`.
        input_shape: Tuple `(height, width, channels)`; height and width may
            be `None`. Defaults to `(224, 224, 3)`.
        gate_init: `"open"` or `"published"`. Defaults to `"open"`.
        threshold: Float, a block runs at inference where its probability is
            at least this. Defaults to `0.5`.
        execution: `"conditional"` or `"masked"`. Defaults to
            `"conditional"`.
        stride_on: `"3x3"` or `"1x1"`, the convolution of a bottleneck block
            (50 layers and up) that takes its stride: torchvision and the
            published networks have the first, `keras.applications` the
            second. Defaults to `"3x3"`.
        name: Optional string.

    Returns:
        A built `SkipNet`.

    Raises:
        ValueError: If `depth` or `gate` is unknown, or `stride_on` is not a
            kernel of its blocks.
    """
    return SkipNet(
        **_imagenet(depth),
        num_classes=num_classes,
        input_shape=input_shape,
        gate=_gate(gate, depth),
        gate_init=gate_init,
        threshold=threshold,
        execution=execution,
        stride_on=stride_on,
        name=name or f"skipnet{depth}_{gate}",
    )


def from_resnet(
    model: ResNet,
    gate: str = "rnn",
    gate_init: str = "open",
    threshold: float = 0.5,
    execution: str = "conditional",
    name: str | None = None,
) -> SkipNet:
    """SkipNet with the architecture and the weights of a dense network.

    The gates are new. Open, as they start by default, they run every block,
    and the logits are those of the dense network.

    Args:
        model: A `ResNet`.
        gate: `"rnn"`, `"ff1"`, `"ff2"`, `"pool"` or `"confidence"`. Defaults
            to `"rnn"`.
        gate_init: `"open"` or `"published"`. Defaults to `"open"`.
        threshold: Float, a block runs at inference where its probability is
            at least this. Defaults to `0.5`.
        execution: `"conditional"` or `"masked"`. Defaults to
            `"conditional"`.
        name: Optional string. Defaults to `None`, the name of `model` with
            that of the gate behind it.

    Returns:
        A built `SkipNet` with the dtype policy of `model`.

    Raises:
        ValueError: If `model` is not a `ResNet`, or another argument is not
            as described.
    """
    if not isinstance(model, ResNet):
        raise ValueError(f"`model` must be a ResNet. Received: model={model!r}")
    skipnet = SkipNet(
        **model.arguments,
        gate=gate,
        gate_init=gate_init,
        threshold=threshold,
        execution=execution,
        name=name or f"{model.name}_{gate}",
        dtype=model.dtype_policy,
    )
    skipnet.backbone.set_weights(model.get_weights())
    return skipnet


def _cifar(depth):
    if not isinstance(depth, int) or depth < 8 or (depth - 2) % 6:
        raise ValueError(
            "`depth` must be 6n + 2 with n >= 1 (8, 14, 20, ... 38, 74, 110, "
            f"152). Received: depth={depth}"
        )
    return {"blocks": ((depth - 2) // 6,) * 3, "filters": _CIFAR_FILTERS}


def _imagenet(depth):
    if depth not in _IMAGENET_BLOCKS:
        raise ValueError(
            f"`depth` must be one of {tuple(_IMAGENET_BLOCKS)}. "
            f"Received: depth={depth}"
        )
    return {
        "blocks": _IMAGENET_BLOCKS[depth],
        "filters": _IMAGENET_FILTERS,
        "bottleneck": depth >= _FIRST_BOTTLENECK_DEPTH,
        "stem": "imagenet",
    }


def _gate(gate, depth):
    if gate == "ff":
        return "ff2" if depth > _FIRST_LIGHT_GATE_DEPTH else "ff1"
    if gate not in GATES:
        raise ValueError(
            f"`gate` must be one of {(*GATES, 'ff')}. Received: gate={gate!r}"
        )
    return gate


# By family, then by whether blocks are gated.
NETWORKS = {
    "cifar": {False: cifar_resnet, True: cifar_skipnet},
    "imagenet": {False: imagenet_resnet, True: imagenet_skipnet},
}
