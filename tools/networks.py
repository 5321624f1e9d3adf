"""The torch architectures behind the gallery: small 28×28 grey versions of well-known networks.

Each keeps the block structure of its paper; only widths, depths and the first strides are smaller. Batch norms
sit in :class:`ConvNorm` directly after their convolution, so that :func:`fold_batchnorm` can fold all of them.

Usage: ``python tools/networks.py`` prints parameters and multiply-accumulates of every network.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class ConvNorm(nn.Module):
    """Convolution, batch norm, activation; "same" padding for odd kernels."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        act: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(c_out)
        self.act = act if act is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H', W')."""
        return self.act(self.norm(self.conv(x)))


class Head(nn.Module):
    """Global average pooling and a linear classifier."""

    def __init__(self, c_in: int, classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(c_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → logits (N, classes)."""
        return self.fc(self.pool(x).flatten(1))


class InvertedResidual(nn.Module):
    """MobileNetV2 block: 1×1 expansion, depthwise 3×3, linear 1×1 bottleneck (arXiv 1801.04381)."""

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = c_in * expansion
        self.expand = ConvNorm(c_in, hidden, 1, act=nn.ReLU6()) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(hidden, hidden, 3, stride, groups=hidden, act=nn.ReLU6())
        self.project = ConvNorm(hidden, c_out, 1)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H/stride, W/stride)."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """MobileNetV2 with ReLU6, stem at full resolution, 28 → 14 → 7."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = ConvNorm(1, 12, 3, act=nn.ReLU6())
        self.stage1, c = _stack(InvertedResidual, 12, 12, 1, 1, 1)
        self.stage2, c = _stack(InvertedResidual, c, 24, 2, 2, 4)
        self.stage3, c = _stack(InvertedResidual, c, 40, 3, 2, 4)
        self.stage4, c = _stack(InvertedResidual, c, 64, 2, 1, 4)
        self.last = ConvNorm(c, 256, 1, act=nn.ReLU6())
        self.head = Head(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 28, 28) → logits (N, classes)."""
        x = self.stage4(self.stage3(self.stage2(self.stage1(self.stem(x)))))
        return self.head(self.last(x))


def _shuffle(x: Tensor, groups: int = 2) -> Tensor:
    """Channel shuffle (N, C, H, W) → (N, C, H, W)."""
    _, c, h, w = x.shape
    return x.reshape(-1, groups, c // groups, h, w).transpose(1, 2).reshape(-1, c, h, w)


class ShuffleUnit(nn.Module):
    """ShuffleNetV2 basic unit: half the channels pass by, then concat and shuffle (arXiv 1807.11164)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.expand = ConvNorm(half, half, 1, act=nn.ReLU())
        self.depthwise = ConvNorm(half, half, 3, groups=half)
        self.project = ConvNorm(half, half, 1, act=nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H, W)."""
        keep, work = x.chunk(2, dim=1)
        return _shuffle(torch.cat((keep, self.project(self.depthwise(self.expand(work)))), dim=1))


class ShuffleDown(nn.Module):
    """ShuffleNetV2 stride-2 unit: both branches convolve the whole input."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        half = c_out // 2
        self.side_depthwise = ConvNorm(c_in, c_in, 3, 2, groups=c_in)
        self.side_project = ConvNorm(c_in, half, 1, act=nn.ReLU())
        self.expand = ConvNorm(c_in, half, 1, act=nn.ReLU())
        self.depthwise = ConvNorm(half, half, 3, 2, groups=half)
        self.project = ConvNorm(half, half, 1, act=nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H/2, W/2)."""
        side = self.side_project(self.side_depthwise(x))
        return _shuffle(torch.cat((side, self.project(self.depthwise(self.expand(x)))), dim=1))


class ShuffleNetV2(nn.Module):
    """ShuffleNetV2, stem at full resolution, 28 → 14 → 7 → 4."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = ConvNorm(1, 16, 3, act=nn.ReLU())
        self.stage2 = _shuffle_stage(16, 48, 3)
        self.stage3 = _shuffle_stage(48, 112, 5)
        self.stage4 = _shuffle_stage(112, 192, 2)
        self.last = ConvNorm(192, 256, 1, act=nn.ReLU())
        self.head = Head(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 28, 28) → logits (N, classes)."""
        return self.head(self.last(self.stage4(self.stage3(self.stage2(self.stem(x))))))


def _shuffle_stage(c_in: int, c_out: int, units: int) -> nn.Sequential:
    return nn.Sequential(ShuffleDown(c_in, c_out), *(ShuffleUnit(c_out) for _ in range(units)))


class Fire(nn.Module):
    """SqueezeNet fire module: squeeze 1×1, expand 1×1 beside 3×3 (arXiv 1602.07360)."""

    def __init__(self, c_in: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = ConvNorm(c_in, squeeze, 1, act=nn.ReLU())
        self.expand1x1 = ConvNorm(squeeze, expand, 1, act=nn.ReLU())
        self.expand3x3 = ConvNorm(squeeze, expand, 3, act=nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, 2·expand, H, W)."""
        x = self.squeeze(x)
        return torch.cat((self.expand1x1(x), self.expand3x3(x)), dim=1)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1's order of fire modules and poolings, fewer channels.

    Batch norm is there for training only: folded away, the graph is the paper's. As in the paper, the
    classifier is a 1×1 convolution followed by the global average; the ReLU between them is left out.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = ConvNorm(1, 32, 3, act=nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.stage1 = nn.Sequential(Fire(32, 16, 32), Fire(64, 16, 32))
        self.stage2 = nn.Sequential(Fire(64, 24, 64), Fire(128, 24, 64), Fire(128, 32, 96), Fire(192, 32, 96))
        self.classifier = nn.Conv2d(192, classes, 1)
        self.average = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 28, 28) → logits (N, classes)."""
        x = self.stage1(self.pool(self.stem(x)))
        x = self.stage2(self.pool(x))
        return self.average(self.classifier(x)).flatten(1)


class SqueezeExcite(nn.Module):
    """Channel attention: global average, two 1×1 convolutions, sigmoid gate (arXiv 1709.01507)."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.act = nn.SiLU()
        self.expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H, W)."""
        return x * torch.sigmoid(self.expand(self.act(self.reduce(self.pool(x)))))


class MBConv(nn.Module):
    """EfficientNet block: inverted residual with squeeze-excite and swish (arXiv 1905.11946)."""

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int, kernel: int = 3) -> None:
        super().__init__()
        hidden = c_in * expansion
        self.expand = ConvNorm(c_in, hidden, 1, act=nn.SiLU()) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(hidden, hidden, kernel, stride, groups=hidden, act=nn.SiLU())
        self.se = SqueezeExcite(hidden, max(4, c_in // 4))
        self.project = ConvNorm(hidden, c_out, 1)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H/stride, W/stride)."""
        y = self.project(self.se(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class EfficientNet(nn.Module):
    """EfficientNet with 3×3 and 5×5 stages, stem with stride 2 as in the paper, 28 → 14 → 7."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = ConvNorm(1, 24, 3, 2, act=nn.SiLU())
        self.stage1, c = _stack(MBConv, 24, 16, 1, 1, 1)
        self.stage2, c = _stack(MBConv, c, 24, 2, 1, 3)
        self.stage3, c = _stack(MBConv, c, 40, 2, 2, 4, kernel=5)
        self.stage4, c = _stack(MBConv, c, 64, 2, 1, 4)
        self.last = ConvNorm(c, 256, 1, act=nn.SiLU())
        self.head = Head(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 28, 28) → logits (N, classes)."""
        x = self.stage4(self.stage3(self.stage2(self.stage1(self.stem(x)))))
        return self.head(self.last(x))


def _stack(
    block: Callable[..., nn.Module],
    c_in: int,
    c_out: int,
    count: int,
    stride: int,
    expansion: int,
    **extra: int,
) -> tuple[nn.Sequential, int]:
    """``count`` blocks, the first with ``stride``; returns them and the channels that leave."""
    first = block(c_in, c_out, stride, expansion, **extra)
    rest = (block(c_out, c_out, 1, expansion, **extra) for _ in range(count - 1))
    return nn.Sequential(first, *rest), c_out


class BasicBlock(nn.Module):
    """Residual block of the CIFAR ResNets, 1×1 projection where the shape changes (arXiv 1512.03385)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(c_in, c_out, 3, stride, act=nn.ReLU())
        self.conv2 = ConvNorm(c_out, c_out, 3)
        same = stride == 1 and c_in == c_out
        self.shortcut = nn.Identity() if same else ConvNorm(c_in, c_out, 1, stride)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H/stride, W/stride)."""
        return self.act(self.conv2(self.conv1(x)) + self.shortcut(x))


class ResNet20(nn.Module):
    """ResNet-20: three stages of three blocks, 16-32-64 channels, 28 → 14 → 7."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = ConvNorm(1, 16, 3, act=nn.ReLU())
        self.stage1 = _residual_stage(16, 16, 1)
        self.stage2 = _residual_stage(16, 32, 2)
        self.stage3 = _residual_stage(32, 64, 2)
        self.head = Head(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 28, 28) → logits (N, classes)."""
        return self.head(self.stage3(self.stage2(self.stage1(self.stem(x)))))


def _residual_stage(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    first = BasicBlock(c_in, c_out, stride)
    return nn.Sequential(first, BasicBlock(c_out, c_out, 1), BasicBlock(c_out, c_out, 1))


class ArticleCNN(nn.Module):
    """The article's sample network for 224×224: six 3×3 convolutions with bias, batch norm and ReLU."""

    def __init__(self, num_classes: int = 1000, widths: Sequence[int] = (32, 64, 128, 256, 512, 1024)) -> None:
        super().__init__()
        c_in = 3
        for i, width in enumerate(widths, start=1):
            self.add_module(f"conv{i}", nn.Conv2d(c_in, width, 3, stride=1 if i == 1 else 2, padding=1))
            self.add_module(f"bn{i}", nn.BatchNorm2d(width))
            self.add_module(f"relu{i}", nn.ReLU())
            c_in = width
        self.avgpool = nn.AvgPool2d(7)
        self.fc = nn.Linear(c_in, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 224, 224) → logits (N, num_classes)."""
        *body, fc = self.children()
        for module in body:
            x = module(x)
        return fc(x.reshape(-1, x.shape[1]))


NETWORKS: dict[str, type[nn.Module]] = {
    "mobilenetv2": MobileNetV2,
    "shufflenetv2": ShuffleNetV2,
    "squeezenet": SqueezeNet,
    "efficientnet": EfficientNet,
    "resnet20": ResNet20,
}


def fold_batchnorm(model: nn.Module) -> nn.Module:
    """Fold every batch norm of a ConvNorm into its convolution (in place, eval mode); returns the model."""
    model.eval()
    for module in model.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
    return model


def parameter_count(model: nn.Module) -> int:
    """Number of weights, buffers (batch norm's running statistics) not counted."""
    return sum(p.numel() for p in model.parameters())


def main() -> None:
    """Print a table of the networks."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    from torch.utils.flop_counter import FlopCounterMode

    entries = [(name, cls(), (1, 1, 28, 28)) for name, cls in NETWORKS.items()]
    for name, model, shape in [*entries, ("article-cnn", ArticleCNN(), (1, 3, 224, 224))]:
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            model.eval()(torch.zeros(shape))
        print(f"{name:14} {parameter_count(model):>9,} parameters {counter.get_total_flops() // 2:>13,} MACs")


if __name__ == "__main__":
    main()
