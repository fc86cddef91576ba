"""dreamprm: sample Chain-of-Function programs, score every function with a PRM, keep the best."""

import os

# How long idle OpenMP threads spin, which is read when torch or llama.cpp is loaded, so it is said before either. Long
# (the default), they hold the cores that the other one, or another program, waits for: beside one busy program `solve`
# took 5 times as long. Not at all (OMP_WAIT_POLICY=PASSIVE), a single stream is 1.7 times slower.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"
