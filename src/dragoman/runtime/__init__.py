"""Layer 5: one engine, one link, and the tasks between them."""
