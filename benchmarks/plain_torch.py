"""The same ResNet in PyTorch, and a step of its training."""

import torch
from architectures import Architecture
from torch import nn


class ResNet(nn.Module):
    """The network, for images `(batch, 3, height, width)`.

    Args:
        architecture: The shapes.
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        width = architecture.filters[0]
        large = architecture.stem == "imagenet"
        kernel, strides = (7, 2) if large else (3, 1)
        stem = [_convolution(3, width, kernel, strides)]
        stem.append(nn.ReLU(inplace=True))
        if large:
            stem.append(nn.MaxPool2d(3, 2, padding=1))
        blocks = []
        for filters, strides in architecture.every_block():
            convolutions = architecture.convolutions(filters, strides)
            blocks.append(_Block(width, convolutions, strides))
            width = convolutions[-1][0]
        self.features = nn.Sequential(*stem, *blocks)
        self.classifier = nn.Linear(width, architecture.classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits `(batch, classes)`."""
        return self.classifier(self.features(images).mean((2, 3)))


class _Block(nn.Module):
    def __init__(self, channels, convolutions, strides):
        super().__init__()
        width = convolutions[-1][0]
        self.projection = nn.Identity()
        if strides != 1 or channels != width:
            self.projection = _convolution(channels, width, 1, strides)
        layers = []
        for filters, kernel, stride in convolutions:
            layers.append(_convolution(channels, filters, kernel, stride))
            layers.append(nn.ReLU(inplace=True))
            channels = filters
        self.transform = nn.Sequential(*layers[:-1])

    def forward(self, inputs):
        return torch.relu_(self.transform(inputs) + self.projection(inputs))


def _convolution(channels, filters, kernel, strides):
    """Convolution and normalisation."""
    return nn.Sequential(
        nn.Conv2d(
            channels,
            filters,
            kernel,
            strides,
            padding=kernel // 2,
            bias=False,
        ),
        nn.BatchNorm2d(filters),
    )


class Training:
    """The same batch again and again, see `steps.KerasTraining`.

    Args:
        architecture: The shapes.
        precision: `"float32"` or `"bfloat16"`.
        batch: Positive int, images in a step.
        threads: Positive int.
    """

    def __init__(
        self,
        architecture: Architecture,
        precision: str,
        batch: int,
        threads: int,
    ):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self._network = ResNet(architecture).to(
            memory_format=torch.channels_last
        )
        self._optimizer = torch.optim.SGD(
            self._network.parameters(), 0.01, momentum=0.9, weight_decay=1e-4
        )
        images, labels = architecture.random_batch(batch)
        # Already channels-last in memory: the pixels were so before.
        self._images = torch.from_numpy(images).permute(0, 3, 1, 2)
        self._labels = torch.from_numpy(labels).long()
        self._bfloat16 = precision == "bfloat16"
        self._loss = None

    @property
    def parameters(self) -> int:
        """Number of weights that are trained."""
        return sum(weight.numel() for weight in self._network.parameters())

    def step(self) -> None:
        """One step of training."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
            logits = self._network(self._images)
            loss = nn.functional.cross_entropy(logits, self._labels)
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._loss = loss.detach()

    def memory(self) -> None:
        """PyTorch keeps no account on processors."""

    def loss(self) -> float:
        """Of the last step."""
        return float(self._loss)
