"""What others report: accuracy in %, cost in multiply-adds per image.

Cost counts one multiply-add as one operation; sources that count two are
halved.  Values marked as read off a figure are right to about 1 % of its
axes; figures are those of the SkipNet paper unless another is named.  PEFC and
LCCL, the static compression of Fig. 5, are not here: the paper plots them and
gives no numbers.

Reference:
    - [Wang et al., 2018](https://arxiv.org/abs/1711.09485)
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Point:
    """One network on the test images of a data set.

    Attributes:
        method: String.
        network: String, the residual network that it is made from.
        macs: Float, multiply-adds per image.
        accuracy: Float, in %.
        source: String, where the values stand.
    """

    method: str
    network: str
    macs: float
    accuracy: float
    source: str


def _curve(method, network, source, unit, *places):
    return tuple(
        Point(method, network, macs * unit, accuracy, source)
        for macs, accuracy in places
    )


def _read_off(figure):
    return f"read off {figure}"


_CIFAR10 = (
    *_curve(
        "SkipNet",
        "ResNet-38 and deeper",
        _read_off("Fig. 6c"),
        1e8,
        *((0.60, 92.75), (0.78, 93.05), (1.26, 93.30), (1.45, 93.68)),
    ),
    *_curve(
        "SACT",
        "pre-activation ResNets",
        _read_off("Fig. 6c"),
        1e8,
        *((0.41, 91.55), (0.55, 91.85), (0.59, 92.4), (1.57, 93.33)),
    ),
    *_curve(
        "ACT",
        "pre-activation ResNets",
        _read_off("Fig. 6c"),
        1e8,
        *((0.45, 91.5), (0.5, 91.9), (0.62, 92.4), (1.02, 92.95), (1.9, 93.5)),
    ),
    Point("BlockDrop", "ResNet-110", 0.905e8, 93.6, "its README, halved"),
    Point("DynConv", "ResNet-32", 0.554e8, 93.58, "its README"),
)

_IMAGENET = (
    *_curve(
        "SkipNet",
        "ResNet-101",
        _read_off("Fig. 5c"),
        1e9,
        *((2.15, 72.05), (2.35, 72.7), (3.0, 74.2), (3.6, 75.2), (3.95, 75.7)),
        *((4.55, 76.4), (4.93, 76.7), (5.32, 76.94), (6.1, 77.4), (6.6, 77.57)),
    ),
    *_curve(
        "SACT",
        "pre-activation ResNet-101",
        _read_off("Fig. 5c"),
        1e9,
        *((3.3, 73.2), (5.6, 75.6), (7.2, 75.8)),
    ),
    *_curve(
        "ACT",
        "pre-activation ResNet-101",
        _read_off("Fig. 5c"),
        1e9,
        *((3.3, 73.1), (4.1, 74.4), (5.8, 75.1), (6.8, 75.4)),
    ),
    *_curve(
        "ConvNet-AIG",
        "ResNet-101",
        _read_off("LAUDNet's main figure"),
        1e9,
        *((4.3, 77.22), (5.08, 77.52)),
    ),
    *_curve(
        "DynConv",
        "ResNet-101",
        _read_off("LAUDNet's main figure"),
        1e9,
        *((2.98, 75.64), (4.24, 76.99), (5.64, 77.86), (6.36, 78.03)),
    ),
    *_curve(
        "LAUDNet, layers",
        "ResNet-101",
        _read_off("its main figure"),
        1e9,
        *((3.45, 77.77), (4.04, 78.11), (4.53, 78.42), (5.22, 78.57)),
        (5.79, 78.61),
    ),
    *_curve(
        "LAUDNet, layers, R50",
        "ResNet-50",
        _read_off("its main figure"),
        1e9,
        *((2.25, 75.95), (2.5, 76.53), (2.66, 76.83), (3.0, 77.07)),
        (3.26, 77.39),
    ),
    Point("BlockDrop", "ResNet-101", 6.2e9, 76.4, "its README, halved"),
)

# Accuracy against multiply-adds (Fig. 5c, 6c) and later methods.
POINTS = {"cifar10": _CIFAR10, "imagenet2012": _IMAGENET}

# Training images, test images, classes (Table 1).
DATASETS = {
    "cifar10": ("50k", "10k", "10"),
    "cifar100": ("50k", "10k", "100"),
    "svhn_cropped": ("604k", "26k", "10"),
    "imagenet2012": ("1.28m", "50k", "1k"),
}

# Test images of the published accuracies.
TEST_IMAGES = {
    "cifar10": 10000,
    "cifar100": 10000,
    "svhn_cropped": 26032,
    "imagenet2012": 50000,
}

# Accuracy in % of the networks without gates, by depth (Table 2).
DENSE = {
    "cifar10": {38: 92.50, 74: 92.95, 110: 93.60},
    "cifar100": {38: 68.54, 74: 70.64, 110: 71.21},
    "svhn_cropped": {38: 97.94, 74: 97.92, 110: 98.09, 152: 98.14},
    "imagenet2012": {34: 73.30, 50: 76.15, 101: 77.37},
}

# Share in % of multiply-adds saved within 0.5 % of the dense accuracy, after
# SP and after HRL, by depth, recurrent gates (Fig. 4 and 5a).
SAVED = {
    "cifar10": {38: (11, 30), 74: (15, 48), 110: (23, 50)},
    "cifar100": {38: (13, 18), 74: (14, 18), 110: (26, 37)},
    "svhn_cropped": {74: (34, 77), 110: (51, 81), 152: (65, 86)},
    "imagenet2012": {34: (3, 20), 50: (1, 12), 101: (15, 30)},
}

# Accuracy in % and multiply-adds in 1e8, hard then soft gates, by depth
# (Table 3).
HARD_AND_SOFT = {
    "cifar10": {
        38: ((90.83, 0.58), (66.67, 0.61)),
        74: ((92.38, 0.92), (52.29, 1.03)),
        110: ((88.11, 0.18), (23.44, 0.05)),
    },
    "cifar100": {
        38: ((67.68, 0.50), (21.70, 0.62)),
        74: ((67.79, 0.61), (25.47, 0.89)),
        110: ((63.66, 0.96), (9.84, 1.00)),
    },
}
