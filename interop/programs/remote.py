"""What the Python peers need to be HTTP servers; see interop/README.md.

A server program takes no argument to serve stdio, or ``sse PORT`` or ``streamable PORT``: at
http://127.0.0.1:PORT/sse or http://127.0.0.1:PORT/mcp. A client program takes ``sse URL`` or
``streamable URL`` instead of the command line of a server.
"""

import sys

HOST = "127.0.0.1"

# How long a client waits before it resumes a stream that a server closed, in milliseconds.
RETRY_MS = 20


def wanted():
    """The transport and the port of the command line; None for stdio."""
    if len(sys.argv) == 1:
        return None
    transport, port = sys.argv[1:]
    return transport, int(port)


def event_store():
    """Every event that was sent, in memory, for as long as the process lives."""
    # mcp 1.6 has no such module and no need of this.
    from mcp.server.streamable_http import EventMessage, EventStore

    class Events(EventStore):
        def __init__(self):
            self.sent = []

        async def store_event(self, stream_id, message):
            self.sent.append((stream_id, message))
            return str(len(self.sent))

        async def replay_events_after(self, last_event_id, send_callback):
            last = int(last_event_id)
            stream_id = self.sent[last - 1][0]
            for number, (stream, message) in enumerate(self.sent[last:], last + 1):
                # A message of None marks the beginning of a stream.
                if stream == stream_id and message is not None:
                    await send_callback(EventMessage(message, str(number)))
            return stream_id

    return Events()
