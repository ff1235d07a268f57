"""How much information the representation carries about the input, and the weights about the data."""
