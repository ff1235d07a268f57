"""
Attack a network your own way
=============================

Any function of a model, images and labels is an attack, and so are the attacks of torchattacks, foolbox, adv-lib and
adversarial-robustness-toolbox: :func:`waterbed.as_attack` adapts them, and checks that what they return lies in [0,
1] and in the ball.
"""

import torch

import waterbed as wb

data = wb.load_dataset("digits")
model = wb.create_model("resnet10", data.num_classes, width=8, in_channels=1)
wb.fit(model, data, wb.AdversarialTraining(wb.PGD("16/255", "linf", steps=3)), epochs=5, lr=0.05, progress=False)


# %%
# An attack without gradients: of twenty random corners of the ball, the one with the lowest logit of the label.


def corners(model, x, y):
    tries = torch.stack([(x + 16 / 255 * torch.randn_like(x).sign()).clamp(0, 1) for _ in range(20)])
    with torch.no_grad():
        logits = torch.stack([model(images).gather(1, y[:, None]).squeeze(1) for images in tries])
    return tries[logits.argmin(0), torch.arange(len(x))]


attacks = [
    wb.as_attack(corners, "corners", eps="16/255", norm="linf"),
    wb.PGD("16/255", "linf", steps=20),
    wb.PGD("16/255", "linf", steps=20, loss="margin"),
    wb.PGD(2.0, "l1", steps=20),
]
score = wb.evaluate(model, data.test, attacks)
print(f"clean: {score.clean}")
for name, accuracy in score.robust.items():
    print(f"{name}: {accuracy}")

# %%
# The score draws itself: each attack with its 95 % interval. Twenty random corners break far less than twenty steps
# along the gradient, so the first bar alone would flatter the network. The l1 ball is another question, not a harder
# one.

figure = score.plot()
figure
