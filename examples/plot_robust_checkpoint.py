"""
Reading a robust checkpoint
===========================

A checkpoint is opened, looked at, attacked and inverted. The two files are networks of the repository
(``results/networks``: ResNet-18 of width 16, trained on CIFAR-10); run the example in the folder ``examples`` of a
clone. For a published one write its file or ``hf:owner/name:file`` instead: ``load_model`` recognises the layouts of
robustness, RobustBench, torchvision and timm.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_image

import waterbed as wb

files = {"standard": "cifar10-standard.safetensors", "robust (l2 eps 1)": "cifar10-eps-1.safetensors"}
models = {name: wb.load_model(Path("../results/networks") / file) for name, file in files.items()}
for name, model in models.items():
    print(f"{name}: mean {model.mean.flatten().tolist()}, {sum(p.numel() for p in model.parameters()):,} weights")

# %%
# Neither network has seen a picture like these: pieces of the two photographs that come with scikit-learn.

places = {"china.jpg": [(60, 300), (200, 60), (140, 200)], "flower.jpg": [(90, 190), (140, 260), (30, 100)]}
pieces = []
for name, corners in places.items():
    photo = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1) / 255
    pieces += [photo[:, top : top + 224, left : left + 224] for top, left in corners]
images = torch.nn.functional.interpolate(torch.stack(pieces), (32, 32), mode="area")

# %%
# How far does the prediction move under an attack? Total variation distance between the distributions, mean of six.

for name, model in models.items():
    with torch.no_grad():
        before = model(images).softmax(1)
        after = model(wb.PGD(eps=0.5, steps=20)(model, images, before.argmax(1))).softmax(1)
    print(f"{name}: {(before - after).abs().sum(1).mean() / 2:.2f} of the probability goes elsewhere at l2 eps 0.5")

# %%
# What do the features keep? Both rows match the features of the photographs; the numbers are what is left of the
# loss. With the standard network an image that looks like noise has the same features as the photograph; with the
# robust one colours and coarse shapes return. That is a difference of these two networks on these pictures;
# :doc:`/inversion` has more of both.

rows = {"photograph": images}
for name, model in models.items():
    result = wb.invert(model, images, steps=120, optimizer="adam")
    print(name, result)
    rows[name] = result.images
figure, axes = plt.subplots(len(rows), len(images), figsize=(8.4, 4), layout="constrained")
for line, (name, row) in zip(axes, rows.items(), strict=True):
    for ax, image in zip(line, row, strict=True):
        ax.imshow(image.detach().permute(1, 2, 0).numpy())
        ax.set(xticks=[], yticks=[])
    line[0].set_ylabel(name.replace(" (", "\n("), rotation=0, ha="right", va="center")
plt.show()
