"""
Invert and see: a network of your own
=====================================

Any network that computes features and ends in a linear layer can be wrapped: what it retains of an image then becomes
a number with a standard error, and a picture.
"""

import torch
from torch import nn

import waterbed as wb
from waterbed.plots import image_grid

# %%
# A small network: ``backbone`` computes the representation z, ``head`` the logits.

torch.manual_seed(0)
data = wb.load_dataset("fashion-mini", size=16).take(2000, 500)
backbone = nn.Sequential(
    nn.Conv2d(1, 16, 3, stride=2, padding=1),
    nn.ReLU(),
    nn.Conv2d(16, 32, 3, stride=2, padding=1),
    nn.ReLU(),
    nn.Flatten(),
)
model = wb.FeatureClassifier(backbone, nn.Linear(32 * 4 * 4, data.num_classes))
wb.fit(model, data, wb.Standard(), epochs=3, lr=0.1, augment="none", progress=False)
print(wb.evaluate(model, data.test, [wb.PGD(eps=0.5, steps=10)]))

# %%
# How sensitive the prediction is to the image, and how much the labels say about the weights.

images, _ = wb.stack(data.test, num_samples=100)
print(wb.InputFisher(model, images).trace())
weights = wb.WeightFisher(model, images)
print(weights.trace())
print(weights.rescaling_invariant_trace())

# %%
# Images with the same features, reached from grey: without noise, and with noise on the weights.

noise = wb.WeightNoise(weights, beta=1e-6, prior_variance=1e-3)
plain = wb.invert(model, images[:6], steps=200, optimizer="adam")
noisy = wb.invert(model, images[:6], "effective", noise, steps=200, optimizer="adam")
print(plain, noisy, sep="\n")
print("SSIM", plain.similarity()["ssim"].mean().item(), noisy.similarity()["ssim"].mean().item())

# %%
# Above the images, in the middle what plain inversion found, below the effective image, which survives noise on the
# weights. All three have nearly the same features for this network.

figure = image_grid({"image": images[:6], "plain": plain.images, "effective": noisy.images})
figure
