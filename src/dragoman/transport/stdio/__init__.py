"""Frames over pipes: one line of UTF-8 each, to a child's standard streams or from our own."""
