"""HTTP+SSE: a stream for what the server says, and an endpoint of its own for what we say."""
