"""What the specification wants documented is documented, and names what really exists."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import click

from dragoman.cli import app
from dragoman.cli.chat import chat as chat_command
from dragoman.cli.exits import KINDS, Exit
from dragoman.cli.host import host as host_group
from dragoman.host.kinds import Action, Code, Denied
from dragoman.model.schema_check import DIALECTS
from dragoman.transport.base import Connector, Link, Receiver
from tests.layout.source import modules
from tests.requirements.duties import duty

DOCS = Path(__file__).parent.parent.parent / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def sections(text: str) -> dict[str, str]:
    """The text below each heading of the second level."""
    _, *parts = re.split(r"^## ", text, flags=re.MULTILINE)
    return {title: body for title, _, body in (part.partition("\n") for part in parts)}


@duty("transport.custom.documented")
def test_the_page_on_transports_shows_all_that_a_link_has_to_do() -> None:
    found = sections(page("transports.md"))
    assert {"stdio", "Memory", "Your own"} <= set(found)
    assert "Client(server)" in found["Memory"]
    # The block is run by test_snippets; it must also be whole.
    assert all(
        name in found["Your own"] for name in ("request_lost", "is_awaited", "link_troubled")
    )
    for protocol in (Link, Receiver, Connector):
        for name, _ in inspect.getmembers(protocol, inspect.isfunction):
            if not name.startswith("_") and name != "frame_refused":
                assert name in found["Your own"], name
    assert "is_congested" in found["Your own"]


@duty("trust.documented")
def test_the_page_on_security_speaks_to_servers_clients_and_transports() -> None:
    found = sections(page("security.md"))
    for part, words in {
        "What a server has to know": ("schema", "ToolError", "log_filter", "middleware", "URIs"),
        "What a client has to know": ("rights", "Sampling", "Roots", "never fetched"),
        "What a transport has to know": ("stdio", "Principal", "encrypt"),
        "What a host does for you": ("whole", "explain", "audit verify", "alone", "attacks.md"),
        "What a host does not do for you": (
            "your rights",
            "bubblewrap",
            "claims",
            "One trust",
            "deleted",
            "anchor",
            "provider",
        ),
    }.items():
        for word in words:
            assert word in found[part], (part, word)


@duty("schemas.documented")
def test_the_page_on_schemas_names_every_dialect_we_read() -> None:
    text = page("tools-and-schemas.md")
    for dialect in DIALECTS:
        name = dialect.removeprefix("json-schema.org/").removesuffix("/schema")
        assert name.removeprefix("draft/") in text, dialect
    assert "2020-12 (also when it names none)" in text


def rows(table: str) -> list[list[str]]:
    """The cells of each row of a table, without its head."""
    found = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[2:]]


def test_the_page_on_errors_says_what_to_do_about_every_code_of_a_host() -> None:
    found = rows(sections(page("errors.md"))["What a host refuses"])
    codes = [cells[0].strip("`") for cells in found]
    assert sorted(codes) == sorted(code.value for code in Code)
    assert all(cells[1] for cells in found)
    # And the table of classes has the fields of the exception.
    (line,) = [one for one in page("errors.md").splitlines() if "`Denied` |" in one]
    named = set(re.findall(r"`(\w+)`", line.split("|")[4]))
    denied = Denied(Code.DEADLINE, "subject", "rule")
    assert named == set(vars(denied)) - {"rule", "subject"}


def test_the_page_on_the_command_line_has_every_exit_code() -> None:
    found = rows(sections(page("command-line.md"))["Exit codes"])
    assert {int(cells[0]) for cells in found} == {code.value for code in Exit}
    for cells in found:
        kind = KINDS.get(Exit(int(cells[0])), "")
        assert cells[1].strip("`") == kind


def test_the_pages_name_every_command_and_every_command_of_a_host() -> None:
    overview = page("command-line.md").partition("\n## ")[0]
    for name in app.group.commands:
        assert f"`dragoman {name}" in overview, name
    table = sections(page("terminal.md"))["dragoman host"]
    for name, command in host_group.commands.items():
        inner = command.commands if isinstance(command, click.Group) else {}
        for words in [f"{name} {one}" for one in inner] or [name]:
            assert re.search(rf"`{words}[ `]", table), words
    chat_page = sections(page("terminal.md"))["dragoman chat"]
    options = [one for one in chat_command.params if isinstance(one, click.Option)]
    shown = {option.opts[0] for option in options} - {"--help"}
    assert [one for one in sorted(shown) if one not in chat_page] == []


def test_the_page_on_approvals_has_every_question_that_a_host_asks() -> None:
    found = sections(page("approvals.md"))
    shown = {
        name
        for part in ("What is asked", "What servers ask")
        for cells in rows(found[part].partition("\n\n- ")[0].partition("\n\nOnly")[0])
        for name in re.findall(r"`([\w.]+)`", cells[0])
    }
    asked = {
        Action[node.attr].value
        for module in modules().values()
        if module.name.startswith(ASKING)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Action"
    }
    assert shown == asked
    # The others are words that rules may use already, and the page on policy says so.
    (line,) = [
        one for one in page("policy.md").splitlines() if one.startswith("Nothing asks about")
    ]
    assert set(re.findall(r"`([\w.]+)`", line)) == {one.value for one in Action} - asked


# The modules of a host that make questions.
ASKING = tuple(f"dragoman.host.{name}" for name in ("asks", "calls", "connections"))
