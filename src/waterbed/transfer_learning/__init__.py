"""Transfer learning: new heads on old backbones, distances between tasks, which backbone to choose."""
