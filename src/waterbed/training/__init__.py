"""Training: the loop, what it minimises, its one configuration, and the folder that a run is kept in."""
