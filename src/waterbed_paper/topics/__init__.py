"""One file per topic of the paper: its claims with their evidence, its figures and its tables."""
