"""Waterbed: train robust representations, measure the information they keep, invert and transfer them.

>>> import waterbed as wb
>>> wb.load_dataset("digits").shape
(1, 8, 8)
"""

import lazy_loader

__version__ = "0.1.0"

# The public names stand in __init__.pyi; each is imported on first use, so that ``import waterbed`` loads no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
