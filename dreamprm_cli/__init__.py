"""dreamprm: sample Chain-of-Function programs, score every function with a PRM, keep the best."""

__version__ = "0.1.0"
