"""Inversion: pictures that a network cannot tell from given ones."""
