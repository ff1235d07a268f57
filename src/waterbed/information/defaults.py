"""The one default of the noise on the weights; every signature and command that has a default reads it here."""

BETA = 1e-8  # information level
PRIOR_VARIANCE = 1e-3  # lambda^2, of each weight
