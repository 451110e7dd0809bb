"""Layer 2: the revisions of the protocol; the only folder that knows a date."""
