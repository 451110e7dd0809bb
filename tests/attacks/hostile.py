"""A server that does as it is told, however bad: raw JSON-RPC, with the standard library alone.

    python hostile.py PLAN.json            over stdio
    python hostile.py PLAN.json --http     over Streamable HTTP, on a free port of 127.0.0.1

Everything that reaches it goes to the file `notes`, one JSON object a line: {"what": "start"} with
its argv, environment, process id and control port; {"what": "got", "raw": TEXT} for each message
(over HTTP with its headers); {"what": "asked"}, {"what": "note"} and so on from the steps below.

The plan (everything but `notes` may be left out):

    notes         the file's path
    hello         members over those of the initialize result
    lists         {"tools/list": [definition, ...], ...}
    page          how many items a page has; none: all of them
    on            {"tools/call": STEPS, "tools/call NAME": STEPS, "resources/read URI": ..., METHOD}
    is_stubborn   outlives the end of its input and SIGTERM
    http          {"POST": {"status": 302, "headers": {...}}}: in place of any answer

STEPS is a list, or {"turns": [STEPS of the first time, of the second, ..., of all others]}. A step
is an object of one verb; every step may also have "times":

    answer: RESULT        error: {"code", "message"}       raw: TEXT (a line as it is)
    ask: {"method", "params"}   a request to the client; waits for its answer unless "later": true
    notify: {"method", "params"}        stderr: TEXT        note: TEXT
    set: {"lists": {...}}  changes the plan, one level deep
    until: NAME            waits until `say` NAME (given over the control port, or by a step)
    answered: 1            waits until nothing that was asked is without an answer
    got: METHOD            waits until a message of this method (or "answer") has come
    look: PATH             notes the text of a file, or why it cannot be read
    run: ARGV              starts a process that it leaves behind
    end: CODE              ends at once
    kill: SIGNAL           sends a signal to its parent, the host

A request whose steps hold no answer and no error gets the plain one, unless there is {"never": 1}.
A connection to the control port takes one line, a JSON list of steps, and says "done".
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socketserver
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

PLAIN: dict[str, Any] = {
    "tools/call": {"content": [{"type": "text", "text": "done"}]},
    "resources/read": {"contents": []},
    "prompts/get": {"messages": []},
    "completion/complete": {"completion": {"values": []}},
}
MEMBERS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}


class Out:
    """Where messages go: lines of stdout, or the stream of one HTTP request."""

    def __init__(self, write: Any) -> None:
        self._write = write
        self._lock = threading.Lock()

    def raw(self, text: str) -> None:
        with self._lock:
            self._write(text)

    def send(self, message: dict[str, Any]) -> None:
        self.raw(json.dumps({"jsonrpc": "2.0", **message}))


class Hostile:
    """The program."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.turns: dict[str, int] = {}
        self.ids = count(1)
        self.waiting: dict[Any, threading.Event] = {}
        self.said: set[str] = set()
        self.methods: list[str] = []
        self.news = threading.Condition()
        self.notes = os.open(plan["notes"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, what: str, **more: Any) -> None:
        os.write(self.notes, (json.dumps({"what": what, **more}) + "\n").encode())

    # --- what comes -------------------------------------------------------------------------------

    def take(self, text: str, out: Out, headers: dict[str, str] | None = None) -> Any:
        """Note a message; returns what answers it, to be called, or None."""
        self.note("got", raw=text, **({} if headers is None else {"headers": headers}))
        try:
            message = json.loads(text)
        except ValueError:
            return None
        if not isinstance(message, dict):
            return None
        method = message.get("method")
        ident = message.get("id")
        with self.news:
            self.methods.append(method or "answer")
            self.news.notify_all()
        if method is None:
            with self.news:
                waiter = self.waiting.pop(str(ident), None)
                self.news.notify_all()
            if waiter is not None:
                waiter.set()
            return None
        params = message.get("params") or {}
        steps = self.steps(method, params)
        if ident is None and steps is None:
            return None
        return lambda: self.act(steps, out, message)

    def steps(self, method: str, params: dict[str, Any]) -> Any:
        on = self.plan.get("on", {})
        name = params.get("name") or params.get("uri")
        for key in (f"{method} {name}", method):
            if key in on:
                steps = on[key]
                if isinstance(steps, dict):
                    turns = steps["turns"]
                    turn = self.turns[key] = self.turns.get(key, -1) + 1
                    return turns[min(turn, len(turns) - 1)]
                return steps
        return None

    def default(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "initialize":
            lists = self.plan.get("lists", {})
            capabilities: dict[str, Any] = {"tools": {"listChanged": True}}
            if "prompts/list" in lists:
                capabilities["prompts"] = {"listChanged": True}
            if "resources/list" in lists or "resources/templates/list" in lists:
                capabilities["resources"] = {"listChanged": True}
            return {
                "protocolVersion": params.get("protocolVersion", "2025-06-18"),
                "capabilities": capabilities,
                "serverInfo": {"name": "hostile", "version": "1"},
                **self.plan.get("hello", {}),
            }
        if method in MEMBERS:
            items = self.plan.get("lists", {}).get(method, [])
            page = self.plan.get("page") or max(len(items), 1)
            start = int(params.get("cursor") or 0)
            more = {"nextCursor": str(start + page)} if start + page < len(items) else {}
            return {MEMBERS[method]: items[start : start + page], **more}
        return dict(PLAIN.get(method, {}))

    # --- what it does -----------------------------------------------------------------------------

    def act(self, steps: Any, out: Out, message: dict[str, Any]) -> None:
        ident = message.get("id")
        is_open = ident is not None
        for step in steps or ():
            for _ in range(step.get("times", 1)):
                if "answer" in step:
                    out.send({"id": ident, "result": step["answer"]})
                    is_open = False
                elif "error" in step:
                    out.send({"id": ident, "error": step["error"]})
                    is_open = False
                elif "never" in step:
                    is_open = False
                else:
                    self.step(step, out)
        if is_open:
            params = message.get("params") or {}
            out.send({"id": ident, "result": self.default(message["method"], params)})

    def step(self, step: dict[str, Any], out: Out) -> None:
        if "ask" in step:
            ident = f"s{next(self.ids)}"
            waiter = self.waiting[ident] = threading.Event()
            self.note("asked", id=ident, method=step["ask"]["method"])
            out.send({"id": ident, **step["ask"]})
            if not step.get("later"):
                waiter.wait()
        elif "notify" in step:
            out.send(step["notify"])
        elif "raw" in step:
            out.raw(step["raw"])
        elif "stderr" in step:
            print(step["stderr"], file=sys.stderr, flush=True)
        elif "note" in step:
            self.note("note", text=step["note"])
        elif "set" in step:
            for name, value in step["set"].items():
                old = self.plan.get(name)
                if isinstance(old, dict) and isinstance(value, dict):
                    value = {**old, **value}
                self.plan[name] = value
        elif "say" in step:
            with self.news:
                self.said.add(step["say"])
                self.news.notify_all()
        elif "until" in step:
            with self.news:
                self.news.wait_for(lambda: step["until"] in self.said)
        elif "answered" in step:
            with self.news:
                self.news.wait_for(lambda: not self.waiting)
        elif "got" in step:
            with self.news:
                self.news.wait_for(lambda: step["got"] in self.methods)
        elif "look" in step:
            try:
                with open(step["look"], encoding="utf-8", errors="replace") as file:
                    self.note("looked", path=step["look"], text=file.read(4096))
            except OSError as fault:
                self.note("looked", path=step["look"], fault=str(fault))
        elif "run" in step:
            child = subprocess.Popen(step["run"], stdin=subprocess.DEVNULL)
            self.note("ran", pid=child.pid)
        elif "end" in step:
            os._exit(step["end"])
        elif "kill" in step:
            os.kill(os.getppid(), step["kill"])
        else:
            raise SystemExit(f"no such step: {step}")

    # --- the ways in ------------------------------------------------------------------------------

    def control(self, anyone: Out) -> int:
        """Listen for steps from the test; returns the port."""
        hostile = self

        class Control(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for step in json.loads(self.rfile.readline()):
                    for _ in range(step.get("times", 1)):
                        hostile.step(step, anyone)
                self.wfile.write(b"done\n")

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Control)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port: int = server.server_address[1]
        return port

    def start(self, anyone: Out, **more: Any) -> None:
        self.note(
            "start",
            pid=os.getpid(),
            argv=sys.argv,
            cwd=os.getcwd(),
            env=dict(os.environ),
            control=self.control(anyone),
            **more,
        )

    def stdio(self) -> None:
        if self.plan.get("is_stubborn"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

        def write(text: str) -> None:
            sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")
            sys.stdout.buffer.flush()

        out = Out(write)
        self.start(out)
        for line in sys.stdin.buffer:
            answer = self.take(line.rstrip(b"\r\n").decode("utf-8", "surrogateescape"), out)
            if answer is not None:
                threading.Thread(target=answer, daemon=True).start()
        if self.plan.get("is_stubborn"):
            threading.Event().wait()
        # Threads that still wait for an answer are not waited for.
        os._exit(0)

    def http(self) -> None:
        hostile = self
        outbox: queue.Queue[str] = queue.Queue()
        anyone = Out(outbox.put)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def begin(self, status: int, kind: str = "", **more: str) -> None:
                planned = hostile.plan.get("http", {}).get(self.command, {})
                self.send_response(planned.get("status", status))
                for name, value in {**more, **planned.get("headers", {})}.items():
                    self.send_header(name, value)
                if kind:
                    self.send_header("Content-Type", kind)
                    self.send_header("Connection", "close")
                    self.close_connection = True
                else:
                    self.send_header("Content-Length", "0")
                self.end_headers()

            def event(self, text: str) -> None:
                self.wfile.write(f"event: message\ndata: {text}\n\n".encode())
                self.wfile.flush()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                out = Out(self.event)
                text = body.decode("utf-8", "surrogateescape")
                answer = hostile.take(text, out, dict(self.headers.items()))
                if answer is None or "POST" in hostile.plan.get("http", {}):
                    self.begin(202)
                    return
                self.begin(200, "text/event-stream", **{"Mcp-Session-Id": "hostile"})
                answer()

            def do_GET(self) -> None:
                hostile.note("get", path=self.path, headers=dict(self.headers.items()))
                if self.path != "/mcp":
                    self.begin(404)
                    return
                self.begin(200, "text/event-stream")
                while True:
                    self.event(outbox.get())

            def do_DELETE(self) -> None:
                self.begin(200)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.start(anyone, url=f"http://127.0.0.1:{server.server_address[1]}/mcp")
        print("ready", flush=True)
        server.serve_forever()


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        hostile = Hostile(json.load(file))
    if "--http" in sys.argv[2:]:
        hostile.http()
    else:
        hostile.stdio()


if __name__ == "__main__":
    main()
