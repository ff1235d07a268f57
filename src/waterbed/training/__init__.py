"""Training: the loop, what it minimises, its one configuration, and the folder of a run."""
