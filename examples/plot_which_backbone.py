"""
Which backbone for my task?
===========================

Two source networks, one trained adversarially, and a target task with few images: a ranking in seconds, then the
fine-tuning that it predicts.
"""

import waterbed as wb

# %%
# The source networks, small here; yours may be run folders, files in ``results/networks``, or from RobustBench or
# timm.

source = wb.load_dataset("fashion-mini", size=16).take(2000, 500)
backbones = {}
for name, objective in {
    "standard": wb.Standard(),
    "robust": wb.AdversarialTraining(wb.PGD(eps=0.5, steps=3)),
}.items():
    model = wb.create_model("resnet10", source.num_classes, width=8, in_channels=1, seed=0)
    backbones[name] = wb.fit(model, source, objective, epochs=3, lr=0.2, augment="none", progress=False).model

# %%
# The target. Only its training images are used to choose.

target = wb.load_dataset("digits", size=16).take(400, 360)
choice = wb.choose(backbones, target, num_samples=400)
columns = ["backbone", "combined", "probe", "probe_low", "probe_high", "knn", "logme", "h_score", "leader_better"]
print(choice.to_frame()[columns].round(2).to_string(index=False))
print(choice.reason)

# %%
# How far is the task, and what does fine-tuning the head and the last batch norm give?

print(wb.dataset_distance(source, target, backbones["standard"], num_samples=400))
table = wb.transfer(backbones, [target], mode=0, seeds=[0, 1], epochs=5, attacks=[wb.PGD(eps=0.5, steps=5)])
print(table.layout())
print(table.layout("pgd-5 l2 eps=0.5"))

# %%
# Every score with its 95 % interval, best on top. Where the intervals of the leader and the others overlap this much,
# ``choice.reason`` says how sure the order is.

figure = choice.plot()
figure
