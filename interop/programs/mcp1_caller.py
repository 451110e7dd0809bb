"""Calls a tool again and again with the first line of the Python SDK; see tests/interop/test_deployment.py.

    python mcp1_caller.py URL TOKEN

Prints a line after the first call. Ends when stdin does, and prints how many calls there were and which failed.
"""

import json
import sys
import threading

import anyio
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client


async def main(url, token):
    is_over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), is_over.set()), daemon=True).start()
    calls, failures = 0, []
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        streamablehttp_client(url, headers=headers) as (reads, writes, _),
        ClientSession(reads, writes) as session,
    ):
        await session.initialize()
        while not is_over.is_set():
            calls += 1
            try:
                with anyio.fail_after(20):
                    result = await session.call_tool("add_note", {"text": str(calls)})
                if result.isError:
                    failures.append(result.content[0].text)
            except Exception as error:
                failures.append(repr(error))
            if calls == 1:
                print("calling", flush=True)
    print(json.dumps({"calls": calls, "failures": failures}))


anyio.run(main, *sys.argv[1:])
