"""Lets the tests of this folder import `splitting` and `stdlib_corpus`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
