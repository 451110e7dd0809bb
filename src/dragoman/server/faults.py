"""Moved: see `dragoman.model.faults`, which the client uses too."""

import sys

from dragoman.model import faults

sys.modules[__name__] = faults
