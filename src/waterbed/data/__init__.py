"""Data: embedded sets, those of the catalogue, and folders, all as float32 (C, H, W) in [0, 1]."""
