"""Moved: see `dragoman.model.schema_check`, which the client uses too."""

import sys

from dragoman.model import schema_check

sys.modules[__name__] = schema_check
