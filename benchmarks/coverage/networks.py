"""The networks of the coverage benchmark: torchvision's pictures and videos, and one or two of every timm family."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

SMALL = 64  # pixels: enough for five halvings, and 12 times cheaper than 224
# Architectures whose structure fixes the size, or changes with it (padding of windows, adaptive pools).
_SIZES = {
    "alexnet": 224,
    "vgg": 224,
    "maxvit": 224,
    "swin_t": 224,
    "swin_s": 224,
    "swin_b": 224,
    "swin_v2": 256,
    "inception": 96,
    "googlenet": 96,
}
_VIDEO = {  # name → (frames, pixels, options of the constructor)
    "mc3_18": (8, 64, {}),
    "r3d_18": (8, 64, {}),
    "r2plus1d_18": (8, 64, {}),
    "s3d": (16, 224, {}),
    "mvit_v1_b": (16, 224, {}),
    "mvit_v2_s": (16, 224, {}),
    "swin3d_t": (8, 112, {}),
    "swin3d_s": (8, 112, {}),
    "swin3d_b": (8, 112, {}),
}
TIMM = (
    "mobilenetv1_100", "mobilenetv3_rw", "mobilenetv4_conv_small", "mobileone_s0", "repvgg_a0", "ghostnet_100",
    "ghostnetv2_100", "efficientnet_lite0", "tinynet_e", "lcnet_050", "fbnetc_100", "semnasnet_075", "spnasnet_100",
    "mixnet_s", "hardcorenas_a", "rexnet_100", "mobilevit_xxs", "mobilevitv2_050", "edgenext_xx_small", "levit_128s",
    "tiny_vit_5m_224", "efficientformer_l1", "efficientformerv2_s0", "fastvit_t8", "repvit_m0_9", "starnet_s1",
    "swiftformer_xs", "shvit_s1", "efficientvit_b0", "efficientvit_m0", "nextvit_small", "convnextv2_atto",
    "inception_next_atto", "mambaout_femto", "poolformer_s12", "convformer_s18", "caformer_s18", "convmixer_768_32",
    "mixer_s32_224", "gmlp_ti16_224", "resmlp_12_224", "sequencer2d_s", "deit_tiny_patch16_224", "cait_xxs24_224",
    "xcit_nano_12_p16_224", "pit_ti_224", "crossvit_tiny_240", "visformer_tiny", "convit_tiny", "twins_svt_small",
    "pvt_v2_b0", "volo_d1_224", "coat_tiny", "coat_lite_tiny", "coatnet_nano_rw_224", "maxvit_tiny_rw_224",
    "davit_tiny", "focalnet_tiny_srf", "nest_tiny", "hiera_tiny_224", "mvitv2_tiny", "swinv2_cr_tiny_224",
    "eva02_tiny_patch14_224", "vitamin_small_224", "beit_base_patch16_224", "resnet10t", "seresnet18",
    "legacy_seresnet18", "ecaresnet26t", "resnetv2_50", "res2net50_26w_4s", "resnest14d", "skresnet18",
    "gcresnet33ts", "bat_resnext26ts", "halonet26t", "lambda_resnet26t", "botnet26t_256", "regnetz_b16", "gernet_s",
    "nf_resnet26", "nfnet_l0", "eca_nfnet_l0", "hrnet_w18_small", "dla34", "dpn48b", "darknet53", "cspresnet50",
    "selecsls42", "vovnet39a", "ese_vovnet19b_dw", "hgnetv2_b0", "tresnet_m", "rdnet_tiny", "xception41",
    "inception_v4", "inception_resnet_v2", "pnasnet5large",
)  # fmt: skip
EXPORTERS = ("torchscript", "dynamo")
BOTH = (  # one of every torchvision family: exported by both exporters
    "alexnet", "vgg11_bn", "resnet18", "resnext50_32x4d", "wide_resnet50_2", "squeezenet1_1", "densenet121",
    "googlenet", "inception_v3", "mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5", "shufflenet_v2_x0_5",
    "efficientnet_b0", "efficientnet_v2_s", "regnet_x_400mf", "regnet_y_400mf", "convnext_tiny", "vit_b_32", "swin_t",
    "swin_v2_t", "maxvit_t", "r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b", "swin3d_t",
)  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A network by name, `timm:NAME` for timm's, and the size of its input."""

    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Input of one sample, batch first."""
        if self.name in _VIDEO:
            frames, pixels, _ = _VIDEO[self.name]
            return (1, 3, frames, pixels, pixels)
        if self.name.startswith("timm:"):
            return (1, *_timm_size(self.name[5:]))
        pixels = next((size for stem, size in _SIZES.items() if self.name.startswith(stem)), SMALL)
        return (1, 3, pixels, pixels)

    def build(self) -> nn.Module:
        """The network with seeded random weights, ready for inference."""
        import torch

        torch.manual_seed(zlib.crc32(self.name.encode()))
        network = self._make()
        _enliven(network)
        return network.eval()

    def _make(self) -> nn.Module:
        if self.name.startswith("timm:"):
            import timm

            return timm.create_model(self.name[5:], pretrained=False, exportable=True)
        from torchvision import models

        options: dict[str, Any] = _VIDEO[self.name][2] if self.name in _VIDEO else {}
        if self.name.startswith("vit_"):
            options = {"image_size": 56 if self.name.endswith("14") else SMALL}
        if self.name in ("googlenet", "inception_v3"):
            options = {"init_weights": False, "aux_logits": False}  # the side classifiers only serve training
        return models.get_model(self.name, weights=None, **options)


def torchvision_names() -> list[str]:
    """All 80 classification models and all video models, the smallest weights first."""
    from torchvision import models

    names = [*models.list_models(module=models), *models.list_models(module=models.video)]
    return sorted(names, key=lambda n: models.get_model_weights(n).DEFAULT.meta["num_params"])


def _timm_size(name: str) -> tuple[int, int, int]:
    import timm

    config = timm.models.get_pretrained_cfg(name)
    smallest = max(SMALL, (config.min_input_size or (3, SMALL, SMALL))[1])
    if config.fixed_input_size or name.startswith(("inception", "pnasnet", "levit", "tiny_vit", "fastvit", "next")):
        smallest = config.input_size[1]
    windows = ("halonet", "lambda", "botnet", "coatnet", "maxvit", "davit", "nest", "hiera", "twins", "efficientvit_m")
    if name.startswith((*windows, "swiftformer", "efficientformer", "visformer", "focalnet", "coat", "crossvit")):
        smallest = config.input_size[1]
    return (3, smallest, smallest)


def _enliven(network: nn.Module) -> None:
    """Replace values that are all alike: fresh zeros and ones hide what a wrong cut would change."""
    import torch

    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if not tensor.is_floating_point() or tensor.numel() < 2 or bool((tensor != tensor.flatten()[0]).any()):
                continue
            level = float(tensor.flatten()[0])
            if level == 0:
                tensor.normal_(0, 0.1 if tensor.ndim < 2 else tensor.shape[-1] ** -0.5)
            else:
                size = max(abs(level), 0.1)  # layer scales of 1e-6 would hide their branch
                tensor.uniform_(0.5 * size, 1.5 * size)
