"""Small instances of the ordinary architectures, without weights of others."""

import pytest
import torch
import torchvision
from torch import nn

CLASSES = 10


def mlp(num_classes=CLASSES):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 16), nn.ReLU(), nn.Linear(16, num_classes))


def small_cnn(num_classes=CLASSES):
    trunk = [nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*trunk, nn.Dropout(0.1), nn.Linear(8, num_classes))


class CosineHead(nn.Module):
    """Ends in logits that no nn.Linear gives: cosines with one direction per class."""

    def __init__(self, num_classes=CLASSES):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = Cosine(32, num_classes)

    def forward(self, x):
        return self.head(self.trunk(x))


class Cosine(nn.Module):
    def __init__(self, size, num_classes):
        super().__init__()
        self.directions = nn.Parameter(torch.randn(num_classes, size))

    def forward(self, z):
        return 10 * nn.functional.linear(nn.functional.normalize(z), nn.functional.normalize(self.directions))


def torchvision_network(name, **settings):
    return lambda: getattr(torchvision.models, name)(num_classes=CLASSES, **settings)


def small_vit():
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=CLASSES)


def small_convnext():
    block = torchvision.models.convnext.CNBlockConfig
    return torchvision.models.ConvNeXt([block(8, 16, 1), block(16, 24, 1), block(24, None, 1)], num_classes=CLASSES)


def timm_network(name, **settings):
    def make():
        return pytest.importorskip("timm").create_model(name, pretrained=False, num_classes=CLASSES, **settings)

    return make


# Name -> (how it is made, side of its images).
NETWORKS = {
    "MLP": (mlp, 32),
    "CNN": (small_cnn, 32),
    "non-linear head": (CosineHead, 32),
    "torchvision resnet18": (torchvision_network("resnet18"), 32),
    "torchvision mobilenet_v3_small": (torchvision_network("mobilenet_v3_small"), 32),
    "torchvision ViT": (small_vit, 32),
    "torchvision ConvNeXt": (small_convnext, 32),
    "timm resnet10t": (timm_network("resnet10t"), 32),
    "timm vit_tiny": (timm_network("vit_tiny_patch16_224", img_size=64, depth=2), 64),
    "timm convnext_atto": (timm_network("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)), 32),
    "timm mixer": (timm_network("mixer_s16_224", img_size=32), 32),
    "timm mobilenetv3": (timm_network("mobilenetv3_small_050"), 32),
    "timm xcit": (timm_network("xcit_nano_12_p16_224", depth=2, embed_dim=32, num_heads=2), 64),
}
