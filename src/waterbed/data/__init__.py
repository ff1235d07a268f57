"""Data: embedded sets, the sets of the catalogue, and folders of images, all as float32 (C, H, W) in [0, 1]."""
