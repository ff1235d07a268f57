"""
Measure a network during training
=================================

How do the measures move while a network learns? ``fit`` records them every few epochs, with standard errors, next to
the accuracies. Here a standard and an adversarial training are watched through two Fisher informations.
"""

import matplotlib.pyplot as plt

import waterbed as wb

data = wb.load_dataset("digits").take(1000, 300)
objectives = {"standard": wb.Standard(), "adversarial": wb.AdversarialTraining(wb.PGD(eps=0.5, steps=3))}

# %%
# Each measure takes the arguments of :func:`waterbed.measure`; with a run folder (``out=``) the records also stand in
# its metrics.jsonl, and ``waterbed report`` draws them.

measures = {name: {"num_samples": 100} for name in ("input_fisher_trace", "weight_rescaling_invariant_trace")}
runs = {}
for name, objective in objectives.items():
    model = wb.create_model("resnet10", data.num_classes, width=8, in_channels=1, seed=0)
    settings = {"epochs": 10, "lr": 0.05, "measures": measures, "measure_every": 1, "progress": False}
    runs[name] = wb.fit(model, data, objective, **settings)
    last = runs[name].history[-1]
    print(name, *(f"{key} {last[key]:.3g} ± {last[key + '_stderr']:.2g}" for key in measures), sep="\n  ")

# %%
# Left: accuracy on the test images. Middle: how fast the predicted distribution moves with the image; adversarial
# training keeps it down, and the axis is logarithmic. Right: how much the labels say about the weights, in a form
# that does not change when layers are rescaled. Bands are 95 % intervals over 100 images of one training each:
# another seed gives another curve.

titles = ("accuracy [%]", "input Fisher trace\n[nats / pixel²]", "weight Fisher, rescaling-\ninvariant trace [nats]")
figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
for ax, key, title in zip(axes, ("test_clean", *measures), titles, strict=True):
    for name, run in runs.items():
        epochs = [record["epoch"] for record in run.history]
        values = [record[key] for record in run.history]
        half = [1.96 * record.get(f"{key}_stderr", 0) for record in run.history]
        ax.plot(epochs, values, marker=".", label=name)
        low, high = zip(*((max(v - h, v / 100), v + h) for v, h in zip(values, half, strict=True)), strict=True)
        ax.fill_between(epochs, low, high, alpha=0.2)
    ax.set(xlabel="epoch", title=title, yscale="linear" if key == "test_clean" else "log")
axes[0].legend(frameon=False)
plt.show()
