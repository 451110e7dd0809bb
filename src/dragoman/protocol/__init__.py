"""Layer 3: the protocol without input or output: frames and a clock reading in, events out."""
