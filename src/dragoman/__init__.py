"""dragoman: the Model Context Protocol for Python."""

__version__ = "0.1.0"
