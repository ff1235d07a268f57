"""
A measure of my own
===================

The library's measures are functions of a network and images that return an :class:`waterbed.Estimate`: a value with
its standard error, unit and sample size. Yours can be, too. Here it is a first-order guess of how far an image is
from the decision boundary: the gap between the two largest logits, divided by the length of its gradient.
"""

import matplotlib.pyplot as plt
import torch

import waterbed as wb

data = wb.load_dataset("digits").take(1000, 300)
images, labels = wb.stack(data.test)


def boundary_distances(model, x):
    """(N,) l2 distances in units of pixels, to first order."""
    x = x.clone().requires_grad_()
    first, second = model(x).topk(2, dim=1).values.T
    (gradient,) = torch.autograd.grad((first - second).sum(), x)
    return ((first - second) / gradient.flatten(1).norm(dim=1)).detach()


def boundary_distance(model, x):
    each = boundary_distances(model, x)
    return wb.Estimate(each.mean().item(), each.std().item() / len(each) ** 0.5, "pixels", len(each), "first order")


# %%
# A callback records it after each epoch, as ``measures=`` does for those that have a name.


class Watch:
    def on_epoch_end(self, job):
        model = job.result.eval()
        job.history[-1]["boundary_distance"] = boundary_distance(model, images).value
        model.train()


models = {}
for name, objective in {"standard": wb.Standard(), "robust": wb.AdversarialTraining(wb.PGD(eps=0.8, steps=3))}.items():
    model = wb.create_model("resnet10", data.num_classes, width=8, in_channels=1, seed=0)
    run = wb.fit(model, data, objective, epochs=6, lr=0.05, callbacks=[Watch()], progress=False)
    models[name] = run.model.eval()
    print(name, [round(record["boundary_distance"], 2) for record in run.history], boundary_distance(model, images))

# %%
# A measure should predict something. Each dot is a digit: across, the guess; up, the smallest of 25 radii at which PGD
# turns it into another class (no dot where none does). The dots follow the line, so the guess is worth something;
# above the line the boundary is farther than the gradient suggests, and far to the right the guess is often too large.
# Most of the digits that are hard to turn belong to the robust network, which the two mean guesses above hardly show.

figure, ax = plt.subplots(figsize=(5.2, 3.8), layout="constrained")
radii = torch.linspace(0.06, 1.5, 25)
for name, model in models.items():
    x, y = images[:150], labels[:150]
    right = model(x).argmax(1) == y
    falls = torch.stack([model(wb.PGD(eps.item(), steps=7)(model, x, y)).argmax(1) != y for eps in radii])
    smallest = torch.where(falls.any(0), radii[falls.int().argmax(0)], torch.nan)
    ax.scatter(boundary_distances(model, x)[right], smallest[right], s=14, alpha=0.6, label=name)
ax.axline((0, 0), slope=1, color="grey", linewidth=1)
ax.set(xlabel="guess: first-order distance [pixels]", ylabel="smallest eps that PGD needs [pixels]", xlim=0, ylim=0)
ax.legend(frameon=False)
plt.show()
