"""Models: a classifier with its normalisation inside, the networks of the paper, and their files."""
