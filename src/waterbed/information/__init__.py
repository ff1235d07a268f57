"""How much information the representation keeps about the input, and the weights about the data."""
