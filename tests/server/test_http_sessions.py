"""Which of many sessions gives way to a new one."""

from __future__ import annotations

import asyncio

from dragoman import Server
from dragoman.server.http_sessions import ORDER_S
from dragoman.transport.streamable.limits import HttpLimits
from tests.http.aids import request
from tests.instant import run_instantly
from tests.server.asgi_aids import opened, post


def test_a_session_that_is_used_all_the_time_outlives_one_that_nobody_uses() -> None:
    async def main() -> None:
        app = Server("s").asgi(limits=HttpLimits(max_sessions=2))
        await app.start()
        busy, left = await opened(app), await opened(app)
        for n in range(20):
            # So often that its place is never out of date by more than is allowed.
            await asyncio.sleep(0.9 * ORDER_S)
            assert (await post(app, request(n, "ping"), busy))[0] == 200
        assert await opened(app)
        assert (await post(app, request(1, "ping"), busy))[0] == 200
        assert (await post(app, request(1, "ping"), left))[0] == 404
        await app.stop()

    run_instantly(main())
