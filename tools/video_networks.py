"""Small versions of torchvision's video networks (arXiv 1711.11248) for grey clips, built from its own blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.video.resnet import BasicBlock, Conv3DNoTemporal, Conv3DSimple


class SmallVideoResNet(nn.Module):
    """torchvision's VideoResNet with one block a stage, fewer channels and a classifier that need not be square.

    Args:
        convolutions: one convolution class a stage; three-dimensional everywhere gives R3D, from the second stage on
            without time MC3.
        widths: channels of each stage.
        classes: answers.
    """

    def __init__(self, convolutions: Sequence[type[nn.Conv3d]], widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(1, widths[0], (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False),
            nn.BatchNorm3d(widths[0]),
            nn.ReLU(),
        )
        stages, c_in = [], widths[0]
        for i, (convolution, width) in enumerate(zip(convolutions, widths, strict=True)):
            stages.append(_stage(convolution, c_in, width, 1 if i == 0 else 2))
            c_in = width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(c_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, T, H, W) → logits (N, classes)."""
        return self.fc(self.pool(self.stages(self.stem(x))).flatten(1))


def _stage(convolution: type[nn.Conv3d], c_in: int, c_out: int, stride: int) -> nn.Module:
    shortcut = None
    if stride != 1 or c_in != c_out:
        strides = convolution.get_downsample_stride(stride)  # type: ignore[operator]
        shortcut = nn.Sequential(nn.Conv3d(c_in, c_out, 1, strides, bias=False), nn.BatchNorm3d(c_out))
    return BasicBlock(c_in, c_out, convolution, stride, shortcut)


def r3d(classes: int) -> SmallVideoResNet:
    """R3D: every convolution looks through space and time."""
    return SmallVideoResNet((Conv3DSimple,) * 3, (16, 32, 64), classes)


def mc3(classes: int) -> SmallVideoResNet:
    """MC3: space and time in the first stage, space alone after it."""
    return SmallVideoResNet((Conv3DSimple, Conv3DNoTemporal, Conv3DNoTemporal), (16, 32, 64), classes)


NETWORKS = {"r3d": r3d, "mc3": mc3}
