"""The defaults that inversion, its studies and the command share; free of torch, so that --help is fast."""

STEPS = 1000
OPTIMIZER = "sgd"
PRECISION = "fp32"
INIT = "gaussian"
NUM_IMAGES = 8  # of a gallery
NUM_SAMPLES = 500  # images behind a weight Fisher
NUM_SEEDS = 3  # of the convergence study
BETAS = (1e-10, 1e-9, 1e-8, 1e-7, 1e-6)  # information levels of the studies
