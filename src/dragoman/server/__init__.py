"""Layer 6: what a server offers, and how a request finds its handler."""
