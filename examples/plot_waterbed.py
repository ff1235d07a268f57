"""
The waterbed in one figure
==========================

Push robustness down here, something rises there. Five small networks are trained at growing eps on garments, and each
is asked four things: how accurate it is, how accurate under attack, how fast its prediction moves with the image, and
how well its features serve another task.
"""

import matplotlib.pyplot as plt

import waterbed as wb

source = wb.load_dataset("fashion-mini", size=16).take(2000, 300)
target = wb.load_dataset("digits", size=16).take(400, 300)
radii = (0.0, 0.25, 0.5, 1.0, 2.0)
models = {}
for eps in radii:
    objective = wb.AdversarialTraining(wb.PGD(eps, steps=3)) if eps else wb.Standard()
    model = wb.create_model("resnet10", source.num_classes, width=8, in_channels=1, seed=0)
    models[f"{eps:g}"] = wb.fit(model, source, objective, epochs=4, lr=0.2, augment="none", progress=False).model

# %%
# Accuracies come with 95 % Wilson intervals, the Fisher trace with a standard error; the features are judged by a
# linear probe whose regularisation is chosen for each network.

scores = [wb.evaluate(model, source.test, [wb.PGD(eps=0.5, steps=10)]) for model in models.values()]
images, _ = wb.stack(source.test, num_samples=100)
traces = [wb.InputFisher(model, images).trace() for model in models.values()]
table = wb.transfer(models, [target], mode="linear", seeds=[0])
print(table)

# %%
# From left to right: what adversarial training costs on its own task, what it buys, what it presses down, and what
# happens elsewhere. With networks as small as these only the middle two move by more than their intervals can
# explain; whether robust features serve other tasks better is a question that :doc:`/transfer` and
# :doc:`/probe-study` treat with many networks, and the answer depends on the task.

figure, axes = plt.subplots(1, 4, figsize=(11, 2.9), layout="constrained")
panels = {
    "accuracy [%]": [(s.clean, s.clean.low, s.clean.high) for s in scores],
    "under PGD, eps 0.5 [%]": [(a, a.low, a.high) for s in scores for a in s.robust.values()],
    "input Fisher trace\n[nats / pixel²]": [(t.value, *t.interval()) for t in traces],
    "linear probe on digits [%]": [(row["accuracy"], row["low"], row["high"]) for row in table.rows],
}
for ax, (title, points) in zip(axes, panels.items(), strict=True):
    value, low, high = zip(*points, strict=True)
    ends = [[v - b for v, b in zip(value, low, strict=True)], [t - v for v, t in zip(value, high, strict=True)]]
    ax.errorbar(range(len(radii)), value, ends, marker="o", capsize=3)
    ax.set(title=title, xlabel="eps of training", xticks=range(len(radii)), xticklabels=models)
axes[2].set_yscale("log")
plt.show()
