import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import waterbed as wb


@pytest.fixture
def sets():
    torch.manual_seed(0)
    a, b = torch.randn(60, 4, dtype=torch.float64), 2 * torch.randn(50, 4, dtype=torch.float64) + 1
    return a, torch.randint(3, (60,)), b, torch.randint(4, (50,))


def test_equals_the_linear_program(sets):
    a, ya, b, yb = sets
    means = [torch.stack([x[y == c].mean(0) for c in y.unique()]) for x, y in ((a, ya), (b, yb))]
    weights = [y.bincount().double() / len(y) for y in (ya, yb)]
    cost = torch.cdist(*means).numpy()
    rows = np.kron(np.eye(3), np.ones((1, 4)))
    columns = np.kron(np.ones((1, 3)), np.eye(4))
    solved = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate(weights))
    assert wb.class_emd(*sets) == pytest.approx(solved.fun, rel=1e-9)


def test_known_facts(sets):
    a, ya, b, yb = sets
    distance = wb.class_emd(*sets)
    assert wb.class_emd(a, ya, a, ya) == pytest.approx(0, abs=1e-9)
    assert wb.class_emd(b, yb, a, ya) == pytest.approx(distance)
    v = torch.tensor([1.0, -2.0, 2.0, 0.0], dtype=torch.float64)
    assert wb.class_emd(a, ya, a + v, ya) == pytest.approx(3.0)
    assert wb.class_emd(3 * a, ya, 3 * b, yb) == pytest.approx(3 * distance)
    assert distance >= float((a.mean(0) - b.mean(0)).norm())


def test_small_source_classes_are_dropped(sets):
    a, ya, b, yb = sets
    few = torch.cat([ya, torch.tensor([7, 7])])
    more = torch.cat([a, torch.full((2, 4), 100.0, dtype=torch.float64)])
    assert wb.class_emd(more, few, b, yb, min_source_count=3) == pytest.approx(wb.class_emd(a, ya, b, yb))
    with pytest.raises(wb.UsageError, match="leaves no class"):
        wb.class_emd(a, ya, b, yb, min_source_count=1000)
