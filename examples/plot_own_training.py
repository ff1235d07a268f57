"""
Train with an objective, an optimiser and data of your own
==========================================================

``fit`` takes any object of the right form: here two data sets of tensors, a loss that attacks half of each batch,
Adam, and a callback that watches the largest weight, while a measure is recorded every second epoch.
"""

import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

import waterbed as wb

# %%
# The data: a pair (train, test) of data sets of images (C, H, W) in [0, 1] with whole numbers as labels.

digits = wb.load_dataset("digits")
train, test = (TensorDataset(*wb.stack(part)) for part in (digits.train, digits.test))

# %%
# The objective. Its ``attack`` is also what accuracy is watched under; ``forward`` is the network that trains.


class HalfAdversarial:
    """Cross-entropy on a batch of which the first half is attacked."""

    def __init__(self, attack):
        self.attack = attack

    def __call__(self, model, forward, x, y):
        half = len(x) // 2
        logits = forward(torch.cat([self.attack(model, x[:half], y[:half]), x[half:]]))
        return F.cross_entropy(logits, y), logits

    def config(self):
        return {"name": "half-adversarial", "eps": self.attack.eps}


# %%
# The optimiser, from the parameters to train, and the callback.


def adam(parameters):
    return torch.optim.Adam(parameters, lr=5e-3)


class LargestWeight:
    def on_epoch_end(self, job):
        job.history[-1]["largest_weight"] = max(p.abs().max().item() for p in job.result.parameters())


# %%
# What the callback and the measure add stands in the history, and in metrics.jsonl where there is a run folder.

model = wb.create_model("resnet10", num_classes=10, width=8, in_channels=1)
objective = HalfAdversarial(wb.PGD(eps=0.3, steps=3))
measures = {"input_fisher_trace": {"num_samples": 100}}
options = {"optimizer": adam, "callbacks": [LargestWeight()], "measures": measures, "measure_every": 2}
run = wb.fit(model, (train, test), objective, epochs=4, progress=False, **options)
for record in run.history:
    keys = ("epoch", "test_clean", "test_robust", "largest_weight", "input_fisher_trace", "input_fisher_trace_stderr")
    print({key: round(record[key], 3) for key in keys if key in record})
print(wb.evaluate(model, torch.utils.data.DataLoader(test, batch_size=100), [wb.PGD(eps=0.3, steps=10)]))

# %%
# The run draws its accuracies and losses, epoch by epoch.

figure = run.plot()
figure
