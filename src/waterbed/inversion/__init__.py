"""Inversion: images that a network cannot tell from given ones."""
