"""Models behind one small protocol, and what each provider accepts."""
