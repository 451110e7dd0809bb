"""The sessions of one server over Streamable HTTP: who has one, how it ends, how it is kept."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec

from dragoman.jsonrpc.frame import Principal
from dragoman.model.base import Implementation, NoParams
from dragoman.model.capabilities import ClientCapabilities
from dragoman.protocol.engine import Engine
from dragoman.protocol.lifecycle import State
from dragoman.revisions.registry import HANDSHAKE
from dragoman.runtime.clock import Clock, LoopClock
from dragoman.runtime.driver import Driver
from dragoman.server.http_io import HttpRefusal
from dragoman.transport.base import Link
from dragoman.transport.streamable.limits import HttpLimits
from dragoman.transport.streamable.replay import EventLog
from dragoman.transport.streamable.server import StreamableLink
from dragoman.transport.streamable.sessions import Saved, SessionRecord, SessionStore

__all__ = ["ID_BYTES", "ORDER_S", "Serving", "Session", "Sessions"]

log = logging.getLogger("dragoman.server")

# 256 bits: nobody guesses one, and 128 would be as safe.
ID_BYTES = 32

# 5 s: as exactly as that they are kept in the order of their last use. Much sooner, and a server with
# thousands in use would spend its time on moving them.
ORDER_S = 5.0

# 60 s: who has not finished opening a session by then never will.
OPENING_S = 60.0

# 64 bits: who holds a session is told apart by them, and nothing is kept secret.
HOLDER_BYTES = 8

# How often idle sessions are looked for, in seconds; they may live that much longer.
SWEEP_S = 10.0


class Serving(Protocol):
    """What is needed of the server behind it."""

    @property
    def name(self) -> str: ...

    def living(self) -> Any: ...

    def attach(
        self,
        link: Link,
        *,
        clock: Clock | None = None,
        resume: Callable[[Engine], None] | None = None,
    ) -> Driver: ...

    async def detach(self, driver: Driver) -> None: ...


class Session:
    """One client: its link and its driver, and since when nobody used it."""

    __slots__ = (
        "after",
        "driver",
        "is_kept",
        "is_over",
        "link",
        "looks",
        "path",
        "placed_at",
        "saved",
        "spare_bytes",
        "stayed_at",
        "used_at",
        "usual",
    )

    def __init__(self, link: StreamableLink, driver: Driver) -> None:
        self.link = link
        self.driver = driver
        # When its client last spoke to it, and when it was last seen to be alive without that.
        self.used_at = 0.0
        self.stayed_at = 0.0
        # When it was put behind all others.
        self.placed_at = 0.0
        # It ended for good, here and wherever it is kept.
        self.is_over = False
        # It was written down where sessions are kept.
        self.is_kept = False
        # How many requests wait to hear whether it is still held here.
        self.looks = 0
        # When it was taken over, by the clock of whoever had it: ours may be behind.
        self.after = 0.0
        # The headers of its POSTs that were found good, but for those that are each one's own, where
        # they went, and how long a token may be beside them.
        self.usual: dict[bytes, bytes] | None = None
        self.path = ""
        self.spare_bytes = 0
        # What was last kept of it: the level, the count of changed subscriptions, when.
        self.saved = (0, 0, 0.0)

    @property
    def lived_at(self) -> float:
        """Since when it has been idle, if it is."""
        return max(self.used_at, self.stayed_at)

    @property
    def is_in_use(self) -> bool:
        """Whether somebody is connected to it, waits for it, or something runs for it."""
        return not self.link.is_idle or self.looks > 0 or bool(self.driver.engine.exchanges)

    @property
    def state(self) -> tuple[int, int]:
        """What may change during a session, of what is kept."""
        engine = self.driver.engine
        return engine.log_level, engine.subscriptions.changes


class Sessions:
    """All of them, by id; those that were used longest ago come first."""

    def __init__(
        self, server: Serving, limits: HttpLimits, events: EventLog, store: SessionStore | None
    ) -> None:
        self.server = server
        self.limits = limits
        self.events = events
        self.store = store
        # The name of this process where sessions are kept: whoever was spoken to last, holds one.
        self.holder = ""
        self.known: OrderedDict[bytes, Session] = OrderedDict()
        # Over, but perhaps still in the store: they must not come back from there.
        self._ending: set[bytes] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._restoring: dict[bytes, asyncio.Task[Session | None]] = {}
        # Idle here, and perhaps held by another process.
        self._parting: dict[bytes, asyncio.Task[None]] = {}
        self._is_keeping = False
        # None is to come back here any more, until the server is started again.
        self._is_ended = False
        self._sweep: asyncio.TimerHandle | None = None
        self._sweep_s = min(SWEEP_S, limits.idle_s)
        # One for all of them: they live in one loop.
        self._clock: Clock | None = None
        # Bound once, for all of them.
        self._when_ended = self._link_ended
        self.on_sweep: Callable[[float], None] = lambda now: None

    def __len__(self) -> int:
        return len(self.known)

    # --- beginning ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """The server's life begins, in the process that serves."""
        self._is_ended = False
        self.holder = os.urandom(HOLDER_BYTES).hex()

    def open(self, principal: Principal) -> Session:
        """A session that has said nothing yet; it counts from `admit` on.

        Raises:
            HttpRefusal: 503, there are too many and all are in use.
        """
        if len(self.known) >= self.limits.max_sessions and not self._evict(principal):
            raise HttpRefusal(503, "too many sessions are open", (b"retry-after", b"30"))
        link = StreamableLink(os.urandom(ID_BYTES).hex(), principal, self.events, self.limits)
        return Session(link, self.server.attach(link, clock=self._the_clock()))

    async def admit(self, session: Session) -> bytes:
        """Its hello was answered: from now on it is found by the id that this returns."""
        ident = session.link.session.encode()
        self.known[ident] = session
        session.link.on_end = self._when_ended
        self.use(session)
        if self.store is not None:
            await self._keep(session)
        return ident

    def use(self, session: Session) -> None:
        """Its client speaks to it now."""
        now = session.link.loop.time()
        session.used_at = now
        self._sweep_later(session.link.loop)
        if now - session.placed_at > ORDER_S:
            session.placed_at = now
            ident = session.link.session.encode()
            if ident in self.known:
                self.known.move_to_end(ident)

    def stay(self, session: Session) -> None:
        """It is alive now, though nobody speaks to it: what another process knows is newer."""
        session.stayed_at = session.link.loop.time()
        self._sweep_later(session.link.loop)

    def _sweep_later(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._sweep is None:
            self._sweep = loop.call_later(self._sweep_s, self._sweep_idle)

    async def find(self, ident: bytes, principal: Principal) -> Session:
        """The session with an id, if this principal may use it; also one that was only kept.

        Raises:
            HttpRefusal: 404 when there is none for this principal, 503 when nobody knows just now.
        """
        session = self.known.get(ident)
        if session is None and self.store is not None:
            session = await self._find_kept(ident)
        if session is None or session.link.owner != principal:
            # The same words for both: whether an id exists is its owner's business.
            raise HttpRefusal(
                404, "no such session, or it has ended: send initialize to begin a new one"
            )
        # Known at once the next time.
        session.link.owner = principal
        return session

    async def _find_kept(self, ident: bytes) -> Session | None:
        parting = self._parting.get(ident)
        if parting is not None:
            await asyncio.wait([parting])
        session = self.known.get(ident)
        if session is None and (ident not in self._ending or ident in self._restoring):
            try:
                session = await self._restore(ident)
            except Exception:
                log.exception("a session could not be looked up")
                text = "sessions cannot be looked up just now"
                raise HttpRefusal(503, text, (b"retry-after", b"1")) from None
        if session is None and self._is_ended:
            raise HttpRefusal(503, "the server is being stopped", (b"retry-after", b"1"))
        return session

    async def look_again(self, session: Session, principal: Principal) -> Session:
        """The same session, as it is now; called when nobody has spoken to it here for a while.

        Where sessions are kept for several processes, another may have had it since: then it goes
        on as that one left it, and is over if it was ended there.

        Raises:
            HttpRefusal: 404, it has ended.
        """
        store, link = self.store, session.link
        is_fresh = link.loop.time() - session.used_at < ORDER_S
        if store is None or not session.is_kept or session.is_in_use:
            return session
        if is_fresh and session.driver.engine.state is State.OPEN:
            return session
        ident = link.session.encode()
        session.looks += 1
        try:
            record = await self._look(session, store)
        except Exception:
            # What is here is good enough until that can be read again.
            log.exception("whether another process has used a session could not be looked up")
            return session
        finally:
            session.looks -= 1
        if self.known.get(ident) is not session:
            # It was ended elsewhere; or somebody who asked at the same time was told the same.
            return await self.find(ident, principal)
        if record is None or record.holder == self.holder or session.is_in_use:
            return session
        self._forget(ident, session, is_kept=True)
        self._restore_with(ident, self._take_back(ident, session))
        return await self.find(ident, principal)

    async def _look(self, session: Session, store: SessionStore) -> SessionRecord | None:
        """What is kept of a session; None when that is what is known here."""
        record = await store.load(session.link.session)
        if record is None:
            # Too old, one too many, or ended: whoever writes it down again is told.
            await self._keep(session)
        return record

    async def _take_back(self, ident: bytes, session: Session) -> Session | None:
        await self._end(ident, session, is_deleted=False)
        return await self._load(ident)

    # --- ending -------------------------------------------------------------------------------------

    async def end(self, session: Session) -> None:
        """End a session, and wait until its handlers have ended."""
        ident = session.link.session.encode()
        if ident in self._ending:
            return
        is_deleted = self._forget(ident, session)
        try:
            await self._end(ident, session, is_deleted=is_deleted)
        except asyncio.CancelledError:
            # Whoever wanted it has left; it ends all the same.
            self._spawn(self._end(ident, session, is_deleted=is_deleted))
            raise

    def end_soon(self, session: Session, *, is_kept: bool = False) -> None:
        """Nobody finds it any more from now on; the rest follows by itself."""
        ident = session.link.session.encode()
        if ident not in self._ending:
            is_deleted = self._forget(ident, session, is_kept=is_kept)
            self._spawn(self._end(ident, session, is_deleted=is_deleted))

    def _end_idle(self, session: Session) -> None:
        """End one that nobody uses here; where another process holds it, it goes on there."""
        ident = session.link.session.encode()
        if self.store is None:
            self.end_soon(session)
        elif ident not in self._ending:
            self._forget(ident, session, is_kept=True)
            parting = self._spawn(self._end_unless_held(ident, session, self.store))
            self._parting[ident] = parting
            parting.add_done_callback(lambda _: self._parting.pop(ident, None))

    async def _end_unless_held(self, ident: bytes, session: Session, store: SessionStore) -> None:
        name = session.link.session
        try:
            if await store.delete(name, self.holder):
                session.is_over = True
                self.events.forget(name)
        except Exception:
            log.exception("a session that nobody used could not be deleted where it is kept")
        await self._end(ident, session, is_deleted=False)

    def _forget(self, ident: bytes, session: Session, *, is_kept: bool = False) -> bool:
        """Nobody finds it any more; True when it has to be deleted where it is kept."""
        self._ending.add(ident)
        session.link.on_end = None
        if self.known.pop(ident, None) is None or is_kept:
            return False
        session.is_over = True
        self.events.forget(session.link.session)
        return self.store is not None

    async def _end(self, ident: bytes, session: Session, *, is_deleted: bool) -> None:
        if is_deleted and self.store is not None:
            try:
                await self.store.delete(session.link.session)
            except Exception:
                log.exception("a session that has ended could not be deleted where it is kept")
        try:
            await self.server.detach(session.driver)
        finally:
            self._ending.discard(ident)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def end_all(self) -> None:
        """End every one; those that are kept go on in another process."""
        self._is_ended = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        if self.store is not None:
            await self._keep_all()
        for session in list(self.known.values()):
            self.end_soon(session, is_kept=self.store is not None)
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    def _link_ended(self, link: StreamableLink) -> None:
        session = self.known.get(link.session.encode())
        if session is not None:
            self.end_soon(session)

    def _sweep_idle(self) -> None:
        """End the sessions that nobody has used for long."""
        self._sweep = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        self.on_sweep(now)
        before = now - self.limits.idle_s
        for session in list(self.known.values()):
            if session.lived_at > before:
                if (
                    session.driver.engine.state is not State.OPEN
                    and session.used_at < now - OPENING_S
                ):
                    self._end_idle(session)
            elif session.link.is_idle:
                log.info("a session ended that nobody used for %g s", self.limits.idle_s)
                self._end_idle(session)
            else:
                self.stay(session)
        if self.store is not None and not self._is_keeping:
            self._spawn(self._keep_all())
        if self.known:
            self._sweep = loop.call_later(self._sweep_s, self._sweep_idle)

    def _evict(self, principal: Principal) -> bool:
        """Make room for a principal; False when nobody can go.

        First goes who never finished opening, then who of the same principal was idle for longest,
        then who was of all: so that nobody who opens many ends somebody else's.
        """
        idle = [session for session in self.known.values() if not session.is_in_use]
        for choice in (
            (one for one in idle if one.driver.engine.state is not State.OPEN),
            (one for one in idle if one.link.owner == principal),
            iter(idle),
        ):
            victim = next(choice, None)
            if victim is not None:
                log.warning("over %d sessions: an idle one was ended", self.limits.max_sessions)
                self._end_idle(victim)
                return True
        return False

    def forget_loop(self) -> None:
        """All is over in this event loop; there may be another."""
        self._clock = None

    # --- outliving the process ----------------------------------------------------------------------

    async def keep_changes(self, session: Session) -> None:
        """Write down what has changed of a session, where sessions are kept."""
        if self.store is not None and session.state != session.saved[:2]:
            await self._keep(session)

    async def _keep(self, session: Session) -> None:
        assert self.store is not None
        if session.is_over:
            return
        engine = session.driver.engine
        link = session.link
        assert engine.peer is not None
        record = SessionRecord(
            id=link.session,
            owner=link.owner.name,
            issuer=link.owner.issuer,
            revision=engine.dialect.wire,
            client_info=msgspec.to_builtins(engine.peer),
            client_capabilities=msgspec.to_builtins(engine.peer_capabilities),
            log_level=engine.log_level,
            subscriptions=tuple(engine.subscriptions),
            used_at=self._wall(session.lived_at),
            held_at=max(self._wall(session.used_at), session.after),
            holder=self.holder,
        )
        session.saved = (*session.state, session.lived_at)
        try:
            saved = await self.store.save(record)
        except Exception:
            # It goes on here; only a restart would lose it.
            log.exception("a session could not be kept")
        else:
            session.is_kept = True
            if saved is Saved.ENDED:
                self.end_soon(session, is_kept=True)
            elif saved is Saved.TAKEN:
                self._release(session)
        await self._delete_if_over(session)

    def _wall(self, moment: float) -> float:
        """A time of the loop, in seconds since the epoch."""
        return time.time() - (asyncio.get_running_loop().time() - moment)

    def _release(self, session: Session) -> None:
        """Another process holds it: whoever listens here would hear nothing of what it says."""
        general = session.link.general
        if general is not None:
            session.link.hang_up(general)

    async def _delete_if_over(self, session: Session) -> None:
        """What ended while it was written down must not stay behind."""
        if session.is_over and self.store is not None:
            await self.store.delete(session.link.session)

    async def _keep_all(self) -> None:
        """Write down what has changed, and look after those who listen to a session held elsewhere."""
        assert self.store is not None
        self._is_keeping = True
        try:
            for session in list(self.known.values()):
                if (*session.state, session.lived_at) != session.saved:
                    await self._keep(session)
                elif session.is_kept and self._only_listens(session):
                    await self._look_after(session, self.store)
        finally:
            self._is_keeping = False

    async def _look_after(self, session: Session, store: SessionStore) -> None:
        try:
            record = await self._look(session, store)
        except Exception:
            log.exception("who holds a session could not be looked up")
            return
        if record is not None and record.holder != self.holder:
            self._release(session)

    def _only_listens(self, session: Session) -> bool:
        """Whether a client holds a stream open here, and has not spoken for a while."""
        link = session.link
        general = link.general
        return (
            general is not None
            and general.reader is not None
            and link.loop.time() - session.used_at > ORDER_S
        )

    async def _restore(self, ident: bytes) -> Session | None:
        """A session that another process began; one task for all who ask at once."""
        restoring = self._restoring.get(ident)
        if restoring is None:
            restoring = self._restore_with(ident, self._load(ident))
        return await asyncio.shield(restoring)

    def _restore_with(
        self, ident: bytes, coroutine: Coroutine[Any, Any, Session | None]
    ) -> asyncio.Task[Session | None]:
        restoring = asyncio.ensure_future(coroutine)
        self._restoring[ident] = restoring
        restoring.add_done_callback(lambda _: self._restoring.pop(ident, None))
        return restoring

    async def _load(self, ident: bytes) -> Session | None:
        assert self.store is not None
        name = ident.decode("latin-1")
        record = await self.store.load(name)
        if record is None or ident in self._ending or self._is_ended:
            return None
        if ident in self.known:
            return self.known[ident]
        dialect = next((one for one in HANDSHAKE if one.wire == record.revision), None)
        if dialect is None or time.time() - record.used_at > self.limits.idle_s:
            return None
        info = msgspec.convert(record.client_info, Implementation)
        capabilities = msgspec.convert(record.client_capabilities, ClientCapabilities)
        owner = Principal(record.owner, record.issuer)
        link = StreamableLink(name, owner, self.events, self.limits)
        driver = self.server.attach(
            link,
            clock=self._the_clock(),
            resume=lambda engine: engine.resume(
                info,
                capabilities,
                dialect,
                log_level=record.log_level,
                subscriptions=record.subscriptions,
            ),
        )
        session = Session(link, driver)
        session.saved = (*session.state, 0.0)
        session.after = record.held_at
        self.known[ident] = session
        link.on_end = self._when_ended
        self.use(session)
        # What we offer may be other than what it was: the client had better look.
        for kind in ("tools", "resources", "prompts"):
            method = f"notifications/{kind}/list_changed"
            if driver.engine.may_send(method):
                driver.notify(method, NoParams())
        # Whoever had it is to know.
        await self._keep(session)
        return session

    def _the_clock(self) -> Clock:
        if self._clock is None:
            self._clock = LoopClock()
        return self._clock
