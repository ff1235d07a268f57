"""
Class images
============

What does a network want to see in order to say "sandal"? :func:`waterbed.invert_label` starts from grey noise and
descends on the pixels until the network is certain of the class. Between a standard and an adversarially trained
network the answers differ visibly.
"""

import matplotlib.pyplot as plt
import torch

import waterbed as wb

data = wb.load_dataset("fashion-mini").take(4000, 500)
objectives = {"standard": wb.Standard(), "adversarial": wb.AdversarialTraining(wb.PGD(eps=2.0, steps=3))}
rows = {}

# %%
# For comparison, the mean training image of each class.

x, y = wb.stack(data.train)
rows["mean image"] = torch.stack([x[y == label].mean(0) for label in range(data.num_classes)])

# %%
# One image per class and network, all from the same start. ``result.losses`` has the cross-entropy at every step.

for name, objective in objectives.items():
    model = wb.create_model("resnet10", data.num_classes, width=8, in_channels=1, seed=0)
    wb.fit(model, data, objective, epochs=3, lr=0.2, augment="none", progress=False)
    result = wb.invert_label(model, torch.arange(data.num_classes), steps=150, lr=0.02)
    rows[name] = result.images
    print(name, wb.evaluate(model, data.test), f"cross-entropy at the end: {result.losses[-1].max():.2g}", sep="\n")

# %%
# Both networks are certain of every image in their row. The standard network is content with specks, the
# adversarially trained one asks for outlines and areas that resemble the class, though no image prior was used. That
# a human recognises something says that the gradient of the network lies along visible shapes; it does not say that
# the network recognises what we do.

figure, axes = plt.subplots(len(rows), data.num_classes, figsize=(10, 3.4), layout="constrained")
for line, (name, images) in zip(axes, rows.items(), strict=True):
    for ax, image in zip(line, images, strict=True):
        ax.imshow(image[0].detach().numpy(), cmap="gray", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
for ax, title in zip(axes[0], data.classes, strict=True):
    ax.set_title(title.replace("/", "/\n").replace(" ", "\n"), fontsize=8)
plt.show()
