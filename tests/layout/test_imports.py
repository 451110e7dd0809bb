"""Who may import whom, held for every import of every module, inside functions too."""

from __future__ import annotations

import subprocess
import sys

from tests.layout.source import Module, every_module, modules

# From layer to the layers below it that it may import; each may import itself.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "jsonrpc": {"errors"},
    "model": {"errors"},
    "revisions": {"errors", "jsonrpc", "model"},
    "protocol": {"errors", "jsonrpc", "model", "revisions"},
    "transport": {"errors", "jsonrpc", "revisions"},
    "runtime": {"errors", "jsonrpc", "model", "revisions", "protocol", "transport"},
    "auth": {"errors", "model"},
    "server": {"errors", "jsonrpc", "model", "revisions", "protocol", "transport", "runtime"},
    "client": {"errors", "jsonrpc", "model", "revisions", "protocol", "transport", "runtime"},
}
ALLOWED["server"] |= {"auth"}
ALLOWED["client"] |= {"auth"}
ALLOWED["ext"] = {*ALLOWED["server"], "server", "client"}
ALLOWED["host"] = {*ALLOWED["client"], "client"}
ALLOWED["gateway"] = {*ALLOWED["ext"]}
ALLOWED["testing"] = {*ALLOWED["ext"], "ext"}
ALLOWED["console"] = {*ALLOWED["ext"], "ext", "host", "gateway"}
ALLOWED["cli"] = {*ALLOWED["console"], "testing", ""}
ALLOWED["__main__"] = {"cli"}
# the front door: it re-exports, and nothing but the command line stays outside
ALLOWED[""] = {*ALLOWED["console"]} - {"jsonrpc", "transport"}

# A transport asks a revision for its facts and for nothing else.
FACTS_ONLY = {"Facts"}

# Libraries besides the standard one. The command line's are there whenever it runs.
ALWAYS: dict[str, set[str]] = {"": set(), "errors": set(), "cli": {"msgspec", "click", "rich"}}
# Optional libraries: only where they are asked for, see the test.
OPTIONAL: dict[str, set[str]] = {
    # both the server and the client check values against JSON Schemas, and share how
    "model": {"jsonschema_rs"},
    # only in the HTTP folder, see `optional_for`
    "transport": {"aiohttp", "multidict", "yarl", "httpcore2", "httpx2"},
    "server": {"pydantic", "pydantic_core", "attr", "attrs", "uvicorn", "uvloop"},
    "client": {"pydantic", "pydantic_core", "attr", "attrs"},
    "testing": {"jsonschema"},
    # the model providers' own clients, the keyring, and what keeps a file's comments
    "host": {"anthropic", "keyring", "openai", "ruamel", "tomlkit"},
    # only for `run --reload`, and for the terminal of the host
    "cli": {"watchfiles", "prompt_toolkit"},
}

# What a layer without IO may not touch: an event loop, a socket, a thread, a process, a clock.
IO = {
    "asyncio",
    "concurrent",
    "ftplib",
    "http",
    "io",
    "logging",
    "multiprocessing",
    "queue",
    "random",
    "requests",
    "select",
    "selectors",
    "signal",
    "socket",
    "socketserver",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "trio",
    "anyio",
    "uuid",
}
PURE = ("jsonrpc", "model", "revisions", "protocol")


def optional_for(module: Module) -> set[str]:
    """The optional libraries a module may import."""
    if module.layer == "transport" and not module.name.startswith("dragoman.transport.http."):
        return set()
    return OPTIONAL.get(module.layer, set())


@every_module
def test_a_module_imports_only_from_its_own_layer_and_those_below(module: Module) -> None:
    assert module.layer in ALLOWED, f"{module.layer} is no layer of the architecture"
    wrong = [
        f"line {one.line}: {target}"
        for target, one in module.own_imports()
        if modules()[target].layer not in {module.layer, *ALLOWED[module.layer]}
    ]
    assert wrong == []


@every_module
def test_a_transport_knows_a_revision_by_its_facts(module: Module) -> None:
    if module.layer != "transport":
        return
    taken = {one.name for target, one in module.own_imports() if ".revisions." in target}
    assert taken <= FACTS_ONLY


@every_module
def test_nothing_but_the_named_libraries_is_imported(module: Module) -> None:
    always = ALWAYS.get(module.layer, {"msgspec"})
    optional = optional_for(module)
    foreign = {
        one.module.partition(".")[0]
        for one in module.imports()
        if one.module.partition(".")[0] not in {*sys.stdlib_module_names, "dragoman"}
    }
    assert foreign <= always | optional


@every_module
def test_an_optional_library_is_loaded_only_when_it_is_asked_for(module: Module) -> None:
    """Inside a function; or at the top of a module that others import only inside functions."""
    optional = optional_for(module)
    eager = [
        one
        for one in module.imports()
        if not one.deferred and one.module.partition(".")[0] in optional
    ]
    if eager:
        importers = [
            other.name
            for other in modules().values()
            for target, one in other.own_imports()
            if target == module.name and not one.deferred and not _is_eager(other)
        ]
        assert importers == []


def _is_eager(module: Module) -> bool:
    """Whether it needs an optional library itself: then it is held to the same rule."""
    optional = optional_for(module)
    names = {one.module.partition(".")[0] for one in module.imports() if not one.deferred}
    return bool(names & optional)


@every_module
def test_the_layers_without_io_import_none(module: Module) -> None:
    if module.layer in PURE:
        assert {one.module.partition(".")[0] for one in module.imports()} & IO == set()


@every_module
def test_nothing_takes_a_private_name_of_another_module(module: Module) -> None:
    taken = [
        f"line {one.line}: {one.module}.{one.name}"
        for _, one in module.own_imports()
        if one.name.startswith("_") and not one.name.startswith("__")
    ]
    assert taken == []


@every_module
def test_nothing_but_the_edges_imports_the_front_door(module: Module) -> None:
    if module.layer not in ("", "cli", "console"):
        assert [one for target, one in module.own_imports() if target == "dragoman"] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        name: {target for target, _ in module.own_imports()} - {name}
        for name, module in modules().items()
    }
    # Take away what imports nothing that is left, until nothing changes: a rest is a circle.
    while True:
        free = {name for name, targets in graph.items() if not targets & graph.keys()}
        if not free:
            break
        graph = {name: targets for name, targets in graph.items() if name not in free}
    assert graph == {}


def _loaded(*names: str) -> set[str]:
    """Every module a fresh interpreter holds after importing these."""
    code = f"import sys, {', '.join(names)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50
    )
    return set(done.stdout.split())


def test_the_engine_runs_without_an_event_loop_or_an_http_library() -> None:
    pure = [name for name, module in modules().items() if module.layer in PURE]
    loaded = _loaded(*pure)
    foreign = {"asyncio", "selectors", "socket", "ssl", "http", "anyio", "trio", "httpx", "aiohttp"}
    assert loaded & foreign == set()
    above = {f"dragoman.{layer}" for layer in ALLOWED if layer not in (*PURE, "", "errors")}
    assert loaded & above == set()


def test_the_front_door_opens_without_loading_what_is_behind_it() -> None:
    loaded = _loaded("dragoman")
    assert {name for name in loaded if name.startswith("dragoman.")} == set()
    assert loaded & {"msgspec", "asyncio", "pydantic"} == set()


# What is asked for by name, and slow to load or not always there.
ONLY_IF_USED = {
    "anthropic",
    "httpx",
    "jsonschema_rs",
    "keyring",
    "openai",
    "prompt_toolkit",
    "pydantic",
    "rich",
    "ruamel",
    "tomlkit",
    "click",
}


def test_the_host_is_named_without_loading_what_it_is_made_of() -> None:
    loaded = _loaded("dragoman.host")
    ours = {name for name in loaded if name.startswith("dragoman.")}
    assert ours == {"dragoman.host"}
    assert loaded & {"msgspec", "asyncio", "sqlite3", *ONLY_IF_USED} == set()


def test_a_host_loads_no_provider_keyring_or_terminal_before_it_is_used() -> None:
    loaded = _loaded("dragoman.host.host")
    assert "dragoman.host.mediator" in loaded
    assert loaded & ONLY_IF_USED == set()
    # The adapters to providers, and what reads other products' files, wait for their use, too.
    providers = {f"dragoman.host.models.{name}" for name in ("anthropic_messages", "openai_chat")}
    assert loaded & {"dragoman.host.formats", *providers} == set()
