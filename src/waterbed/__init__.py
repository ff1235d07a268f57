"""Waterbed: train robust representations, measure the information they keep, invert and transfer them.

>>> import waterbed as wb
>>> wb.load_dataset("digits").shape
(1, 8, 8)
"""

import lazy_loader

__version__ = "0.2.0.dev0"

# __init__.pyi declares the public names; each is imported on first use, so ``import waterbed`` does not load torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
