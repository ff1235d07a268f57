"""
Fisher information of a vision transformer
==========================================

Where in a transformer do the labels say something about the weights? :class:`waterbed.WeightFisher` takes any
network, here a small one of timm (``pip install timm``), and its exact diagonal has one entry per weight. Summed over
the weights of each layer it is a map of the network.
"""

import matplotlib.pyplot as plt
import timm
import torch

import waterbed as wb

data = wb.load_dataset("fashion-mini", size=16).take(2000, 300)
torch.manual_seed(0)
shape = {"img_size": 16, "patch_size": 4, "in_chans": 1, "embed_dim": 48, "depth": 4, "num_heads": 4}
model = timm.create_model("vit_tiny_patch16_224", num_classes=data.num_classes, **shape)
wb.fit(model, data, epochs=10, optimizer="adamw", lr=2e-3, augment="none", progress=False)
print(wb.evaluate(model, data.test))

# %%
# The exact Fisher matrix of all weights, from 100 images. It is an operator: nothing of its size squared is stored.

images, _ = wb.stack(data.train, num_samples=100)
fisher = wb.WeightFisher(model, images)
print(fisher.shape, fisher.trace(), fisher.rescaling_invariant_trace(), sep="\n")

# %%
# The diagonal is in the order of ``model.parameters()``. Each square is a kind of layer in one of the four blocks;
# its colour is the mean information per weight.

parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
means = torch.zeros(len(parts), shape["depth"], dtype=torch.float64)
sizes = torch.zeros_like(means)
entries = fisher.diagonal().split([p.numel() for p in model.parameters()])
for (name, _), values in zip(model.named_parameters(), entries, strict=True):
    for i, part in enumerate(parts):
        if name.startswith("blocks.") and f".{part}." in name:
            means[i, int(name.split(".")[1])] += values.sum()
            sizes[i, int(name.split(".")[1])] += len(values)
means /= sizes

# %%
# In this picture information lies early: a weight of the first block carries more than its like in the fourth, and the
# attention carries more than the MLP behind it. The map is of one small network after one short training; a trace
# depends on how layers are scaled against each other, which ``rescaling_invariant_trace`` above does not.

figure, ax = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
picture = ax.imshow(means.log10().numpy(), cmap="viridis", aspect="auto")
for i, j in torch.cartesian_prod(torch.arange(len(parts)), torch.arange(shape["depth"])).tolist():
    colour = "white" if means[i, j] < means.max() / 5 else "black"
    ax.text(j, i, f"{means[i, j]:.0e}", ha="center", va="center", color=colour, fontsize=8)
ax.set(xticks=range(4), xticklabels=range(1, 5), yticks=range(len(parts)), yticklabels=parts, xlabel="block")
figure.colorbar(picture, label="log10 of nats per weight²")
plt.show()
