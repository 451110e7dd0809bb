"""Real HTTP peers for the tests of clients: a server scripted byte by byte, a proxy, a CA."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "Authority",
    "Call",
    "Peer",
    "answer",
    "chunked",
    "make_authority",
    "running_proxy",
    "serving",
    "serving_h2",
]


def answer(
    status: int = 200,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    reason: str = "Said",
) -> bytes:
    """A whole response, with the length of its body unless `headers` frame it."""
    fields = dict(headers or {})
    if not {"content-length", "transfer-encoding"} & {name.lower() for name in fields}:
        fields["Content-Length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} {reason}\r\n{lines}\r\n".encode("latin-1") + body


def chunked(*pieces: bytes) -> bytes:
    """A body in chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces if one) + b"0\r\n\r\n"


@dataclass
class Call:
    """One request that came, and the connection to answer it on."""

    method: str
    target: str
    #: as they were written, in order
    fields: list[tuple[str, str]]
    body: bytes
    connection: int
    reader: asyncio.StreamReader = field(repr=False)
    writer: asyncio.StreamWriter = field(repr=False)

    def header(self, name: str) -> str | None:
        """A header's value, whatever the case of its name."""
        found = [value for key, value in self.fields if key.lower() == name.lower()]
        assert len(found) <= 1, f"{name} came {len(found)} times"
        return found[0] if found else None

    async def write(self, data: bytes) -> None:
        """Write, and wait until it left."""
        self.writer.write(data)
        await self.writer.drain()

    async def drip(self, data: bytes, size: int = 1) -> None:
        """Write in pieces, each of which is likely to be a read of its own."""
        for start in range(0, len(data), size):
            await self.write(data[start : start + size])
            await asyncio.sleep(0)

    def cut(self) -> None:
        """Close the connection here and now, without an end."""
        self.writer.transport.abort()


Script = Callable[[Call], Awaitable[None]]


class Peer:
    """A running server: what came to it, and how many connections it has."""

    def __init__(self, script: Script, blurts: bytes = b"", *, reads_bodies: bool = True) -> None:
        self.script = script
        self.reads_bodies = reads_bodies
        #: what it says to whoever has sent anything, in place of reading requests
        self.blurts = blurts
        self.url = ""
        self.calls: list[Call] = []
        self.accepted = 0
        self.open = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def until_closed(self) -> None:
        """Wait until nobody is connected any more."""
        await self.until(lambda: self.open == 0)

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until a request or the end of a connection makes `is_so` true."""
        while not is_so():
            self._changed.clear()
            await self._changed.wait()

    def changed(self) -> None:
        """Something happened that a test may wait for."""
        self._changed.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.accepted += 1
        self.open += 1
        number = self.accepted
        try:
            if self.blurts:
                await reader.read(1)
                writer.write(self.blurts)
                writer.close()
                return
            while (call := await read_call(reader, writer, number, self.reads_bodies)) is not None:
                self.calls.append(call)
                self.changed()
                await self.script(call)
                if call.header("connection") == "close":
                    writer.close()
                if writer.transport.is_closing():
                    return
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self.open -= 1
            self.changed()


async def read_call(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, reads_body: bool
) -> Call | None:
    """The next request of a connection, or None at its end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    fields = [(name, value.strip()) for name, _, value in (one.partition(":") for one in lines)]
    named = {name.lower(): value for name, value in fields}
    body = b""
    if not reads_body:
        pass
    elif "content-length" in named:
        body = await reader.readexactly(int(named["content-length"]))
    elif named.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    return Call(method, target, fields, body, number, reader, writer)


@contextlib.asynccontextmanager
async def serving(
    script: Script,
    *,
    tls: ssl.SSLContext | None = None,
    uds: str | None = None,
    blurts: bytes = b"",
    reads_bodies: bool = True,
) -> AsyncIterator[Peer]:
    """A server on a port of its own, or on a Unix socket."""
    peer = Peer(script, blurts, reads_bodies=reads_bodies)

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(peer.serve(reader, writer))
        peer.tasks.add(task)
        task.add_done_callback(peer.tasks.discard)

    if uds is not None:
        server: asyncio.Server = await asyncio.start_unix_server(connected, uds)
        peer.url = "http://localhost"
    else:
        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        peer.url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
    try:
        yield peer
    finally:
        await _stop(server, peer)


async def _stop(server: asyncio.Server, peer: Peer) -> None:
    server.close()
    # TLS handshakes that fail are tasks of asyncio's own, over in a few turns of the loop.
    handshakes = [one for one in asyncio.all_tasks() if "_accept_connection2" in str(one)]
    if handshakes:
        await asyncio.wait(handshakes)
    for task in list(peer.tasks):
        task.cancel()
    await asyncio.gather(*peer.tasks, return_exceptions=True)


# --- a forward proxy --------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def running_proxy(
    *, authorization: str | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Peer]:
    """A forward proxy: absolute targets are forwarded, CONNECT opens a tunnel."""

    async def script(call: Call) -> None:
        if authorization is not None and call.header("proxy-authorization") != authorization:
            await call.write(answer(407, b"who are you?"))
            return
        if call.method == "CONNECT":
            host, _, port = call.target.rpartition(":")
            there_reader, there_writer = await asyncio.open_connection(host, int(port))
            await call.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        else:
            assert call.target.startswith("http://"), call.target
            place, slash, path = call.target.removeprefix("http://").partition("/")
            host, _, port = place.rpartition(":")
            there_reader, there_writer = await asyncio.open_connection(host, int(port))
            lines = "".join(
                f"{name}: {value}\r\n"
                for name, value in call.fields
                if name.lower() not in ("proxy-authorization", "connection")
            )
            head = f"{call.method} {slash}{path} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n"
            there_writer.write(head.encode("latin-1") + call.body)
            await _copy(there_reader, call.writer)
            there_writer.close()
            return
        await asyncio.gather(_tunnel(call.reader, there_writer), _tunnel(there_reader, call.writer))
        call.cut()

    async with serving(script, tls=tls) as peer:
        yield peer


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


async def _tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _copy(reader, writer)
    # What was written still leaves; then the other side hears the end.
    writer.close()


# --- HTTP/2 -----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def serving_h2(tls: ssl.SSLContext, body: bytes) -> AsyncIterator[Peer]:
    """An HTTP/2 server that answers each request with `body`; `calls` has method and target."""
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import DataReceived, RequestReceived, StreamEnded

    async def no_script(call: Call) -> None:
        raise AssertionError

    peer = Peer(no_script)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        peer.accepted += 1
        peer.open += 1
        heads: dict[int, list[tuple[str, str]]] = {}
        bodies: dict[int, bytes] = {}
        try:
            while data := await reader.read(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, RequestReceived):
                        heads[event.stream_id] = [
                            (name.decode(), value.decode()) for name, value in event.headers
                        ]
                        bodies[event.stream_id] = b""
                    elif isinstance(event, DataReceived):
                        bodies[event.stream_id] += event.data
                        connection.acknowledge_received_data(
                            event.flow_controlled_length, event.stream_id
                        )
                    elif isinstance(event, StreamEnded):
                        ident = event.stream_id
                        named = dict(heads[ident])
                        call = Call(
                            named[":method"],
                            named[":path"],
                            heads[ident],
                            bodies[ident],
                            peer.accepted,
                            reader,
                            writer,
                        )
                        peer.calls.append(call)
                        connection.send_headers(
                            ident, [(":status", "200"), ("content-type", "application/json")]
                        )
                        connection.send_data(ident, body, end_stream=True)
                writer.write(connection.data_to_send())
        except OSError:
            pass
        finally:
            peer.open -= 1
            peer.changed()
            writer.transport.abort()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(serve(reader, writer))
        peer.tasks.add(task)
        task.add_done_callback(peer.tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    peer.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield peer
    finally:
        await _stop(server, peer)


# --- certificates -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Authority:
    """A CA of our own, a certificate for this machine, and one for a client."""

    ca: str
    certificate: str
    key: str
    client_certificate: str
    client_key: str
    locked_key: str
    password: str = "open sesame"

    def server_context(self, *, asks_client: bool = False) -> ssl.SSLContext:
        """For a server at 127.0.0.1."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        if asks_client:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def make_authority(folder: Path) -> Authority:
    """Make the files with the openssl command."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        *("req", "-x509", *key, "-days", "2", "-subj", "/CN=our own CA"),
        *(
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ),
    )
    for name, extension in (
        ("server", "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n"),
        ("client", "extendedKeyUsage=clientAuth\n"),
    ):
        (folder / f"{name}.ext").write_text(
            "authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n" + extension
        )
        openssl(
            *("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key"),
            *("-out", f"{name}.csr"),
        )
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem"),
        )
    openssl(
        "ec", "-in", "client.key", "-aes128", "-passout", "pass:open sesame", "-out", "lock.key"
    )
    return Authority(
        ca=str(folder / "ca.pem"),
        certificate=str(folder / "server.pem"),
        key=str(folder / "server.key"),
        client_certificate=str(folder / "client.pem"),
        client_key=str(folder / "client.key"),
        locked_key=str(folder / "lock.key"),
    )
