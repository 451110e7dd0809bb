"""Layer 6: typed calls to one server, and what a client offers in return."""
