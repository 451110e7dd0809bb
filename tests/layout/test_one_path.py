"""There is one way from a host to a server: who decides, who makes tickets, who opens connections.

`tests/attacks` shows the same from the server's side. Here it is read from the source, so that a
second way is seen when it is written, and not when somebody finds it.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

from tests.layout.source import Module, every_module, modules

# What a host may not use: its servers are reached through a client, and through nothing else.
DOORS = {"http", "multiprocessing", "pty", "socket", "subprocess", "urllib.request"}
# The functions of asyncio and os that open such a door without an import of their own.
OPENERS = {
    "create_connection",
    "create_subprocess_exec",
    "create_subprocess_shell",
    "create_unix_connection",
    "execv",
    "execve",
    "fork",
    "open_connection",
    "open_unix_connection",
    "popen",
    "posix_spawn",
    "subprocess_exec",
    "system",
}

# What makes and guards the network of a confined server: it carries what such a server sends to
# others, and knows nothing of clients, gates and decisions.
OF_THE_SANDBOX = {
    "dragoman.host.sandbox.connector": {"socket"},
    "dragoman.host.sandbox.gatekeeper": {"open_connection", "socket"},
    "dragoman.host.sandbox.launch": {"execve", "socket"},
}

# Who may do what, by the name that is called: the modules below dragoman.host.
MADE_BY: dict[str, set[str]] = {
    "Ticket": {"calls"},
    "AnswerTicket": {"inbound"},
    "Clearance": {"mediator"},
    "Gate": {"connections"},
    "Client": {"connections"},
    "StdioConnector": {"sandbox.connector"},
}
# The same for methods, by what stands before the dot.
DONE_BY: dict[str, set[str]] = {
    "broker.ask": {"mediator"},
    "audit.decision_in_turn": {"mediator"},
    "grants.add": {"mediator"},
    "gate.admit": {"calls"},
    "gate.lend_answer": {"inbound"},
    "gate.guard": {"connections"},
    "_hooks.connector": {"connections"},
    "_connector.connect": {"gate"},
}


def is_surface(module: Module) -> bool:
    """Whether it is the terminal's part of the host: what asks, shows and manages."""
    reached = (target for target, _ in module.own_imports())
    return module.layer == "cli" and any(name.startswith("dragoman.host") for name in reached)


def calls_in(module: Module) -> Iterator[tuple[str, ast.Call]]:
    """Each call with the last two names of what is called: "gate.admit", "Ticket"."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            yield ".".join(ast.unparse(node.func).split(".")[-2:]), node


def users(wanted: set[str]) -> dict[str, set[str]]:
    """For each of these names the modules of the host and of its surfaces that call it."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for module in modules().values():
        if module.layer == "host" or is_surface(module):
            for name, _ in calls_in(module):
                if name in wanted:
                    found[name].add(module.name.removeprefix("dragoman.host."))
    return dict(found)


def test_tickets_clearances_gates_and_clients_are_each_made_in_one_place() -> None:
    assert users(set(MADE_BY)) == MADE_BY


def test_deciding_asking_and_letting_through_each_happen_in_one_place() -> None:
    assert users(set(DONE_BY)) == DONE_BY


def test_a_ticket_names_the_decision_that_was_recorded_for_it() -> None:
    decided = {"Ticket": "clearance.decision", "AnswerTicket": "answered.decision"}
    found = [
        (name, {one.arg: ast.unparse(one.value) for one in call.keywords}.get("decision"))
        for module in modules().values()
        if module.layer == "host"
        for name, call in calls_in(module)
        if name in decided
    ]
    # Tools; resources and prompts; completions; and one place for all answers.
    assert sorted(found) == sorted([("AnswerTicket", decided["AnswerTicket"])] + [("Ticket", decided["Ticket"])] * 3)  # fmt: skip


def test_every_connector_of_a_host_is_behind_its_gate() -> None:
    connections = modules()["dragoman.host.connections"]
    guarded = {
        ast.unparse(node.targets[0])
        for node in ast.walk(connections.tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func) == "self.gate.guard"
    }
    clients = [call for name, call in calls_in(connections) if name == "Client"]
    assert clients
    assert {ast.unparse(call.args[0]) for call in clients} <= guarded


@every_module
def test_a_host_opens_no_process_and_no_socket_by_itself(module: Module) -> None:
    if module.layer != "host":
        return
    imported = {one.module for one in module.imports()}
    doors = {name for name in imported if name in DOORS or name.split(".")[0] in DOORS}
    called = {name.rpartition(".")[2] for name, _ in calls_in(module)}
    assert doors | (called & OPENERS) == OF_THE_SANDBOX.get(module.name, set())


def test_what_guards_a_confined_server_knows_of_no_client_and_no_decision() -> None:
    # The last two hold the records that the methods of a link speak of.
    allowed = (
        "dragoman.host.sandbox",
        "dragoman.transport.",
        "dragoman.errors",
        "dragoman.jsonrpc.frame",
        "dragoman.revisions.facts",
    )
    for name in OF_THE_SANDBOX:
        reached = {target for target, _ in modules()[name].own_imports()}
        assert [one for one in reached if not one.startswith(allowed)] == []


@every_module
def test_the_terminal_of_a_host_knows_no_client_and_no_transport(module: Module) -> None:
    if not is_surface(module):
        return
    reached = {target for target, _ in module.own_imports()}
    ways = (
        "dragoman.client.client",
        "dragoman.transport",
        "dragoman.runtime",
        "dragoman.host.gate",
    )
    assert [name for name in reached if name.startswith(ways)] == []


def test_the_names_that_are_looked_for_are_seen() -> None:
    tree = ast.parse("import subprocess\na.gate.admit(Ticket(decision=1))\nos.fork()")
    module = Module("dragoman.host.bad", modules()["dragoman.host"].path, tree)
    assert {name for name, _ in calls_in(module)} == {"gate.admit", "Ticket", "os.fork"}
