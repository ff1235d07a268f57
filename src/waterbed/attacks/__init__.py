"""Attacks: balls to stay in, and projected gradient descent inside them."""
