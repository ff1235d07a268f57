"""Evaluation: clean and robust accuracy with intervals, the standard attacks, signs of gradient masking."""
