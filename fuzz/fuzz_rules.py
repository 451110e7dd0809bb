"""Feed arbitrary rules, objects and arguments to `dragoman.host.rules`.

    python fuzz/fuzz_rules.py [-max_total_time=60] [libFuzzer options]

Needs atheris; without it, a plain random loop runs for a minute (or `-max_total_time` seconds).
Ends with a traceback at the first input that breaks a promise.
"""

from __future__ import annotations

import posixpath
import random
import sys
import time
from dataclasses import replace
from urllib.parse import unquote

try:
    import atheris
except ImportError:
    atheris = None

if atheris is None:
    from dragoman.errors import Misconfigured
    from dragoman.host import kinds, located, policy, rules
else:
    with atheris.instrument_imports(include=["dragoman.host"]):
        from dragoman.errors import Misconfigured
        from dragoman.host import kinds, located, policy, rules

# What a rule, a path or a URL is made of: one byte picks a piece, so few bytes give long texts.
PIECES = [
    *["tool(", "flow(", "roots(", "resource(", "elicit.url(", "sampling(", "mcp__", "prompt("],
    *["fs/", "gh/", "*/", "fs", "*", ")", "(", " -> ", "model:x", "server:", "unknown", "__"],
    *[", p=", ", /a/0=", '"', "=", ",", " ", "read", "write_*", "/srv/", "/srv/*", "/etc/"],
    *["file://", "https://", "*.x.example", "x.example", "@", ":443", ":", "?", "#", "\\", "//"],
    *["..", ".", "/", "%2e", "%2F", "%2a", "%252e", "%", "\x00", "\n", "é", "\u202e", "\ud800"],
    *["true", "1", "1.0", "null", "{", "}", "[", "]", "/*", "*/", "//", '"a":', "a", "b"],
]

EFFECTS = (kinds.Effect.ALLOW, kinds.Effect.ASK, kinds.Effect.DENY)


def text_of(data: bytes) -> str:
    return "".join(PIECES[byte] if byte < len(PIECES) else chr(byte) for byte in data)


def check_told(error: Misconfigured, begin: str) -> None:
    """An error says where; its text goes to terminals, so nothing in it may draw there."""
    for line in str(error).splitlines():
        assert line.startswith(begin), line
        assert line.isprintable(), line


def check_rule(text: str, target: str) -> None:
    """A rule is read or refused; what its allow matches, its deny and its ask match, too."""
    found: dict[kinds.Effect, rules.Rule] = {}
    for effect in EFFECTS:
        try:
            found[effect] = rules.Rule.parse(text, effect=effect, layer="user", source="f:1")
        except Misconfigured as error:
            check_told(error, "f:1: ")
    if not found:
        return
    assert set(found) >= {kinds.Effect.ASK, kinds.Effect.DENY}, "an allow that is no deny"
    deny = found[kinds.Effect.DENY]
    again = rules.Rule.parse(deny.text, effect=kinds.Effect.DENY, layer="user", source="f:1")
    assert again == deny
    intent = kinds.Intent(
        action=deny.action,
        server="fs",
        identity="i",
        object=target,
        arguments={"p": target, "a": [target, 1]},
    )
    matches = {effect: rule.matches(intent) for effect, rule in found.items()}
    assert matches[kinds.Effect.ASK] == matches[kinds.Effect.DENY]
    allow = found.get(kinds.Effect.ALLOW)
    if allow is not None and matches[kinds.Effect.ALLOW]:
        assert matches[kinds.Effect.DENY], (text, target)
        assert allow.server.is_exact
    some = policy.Policy(rules=tuple(found.values()))
    for one in (some, policy.Policy(rules=(deny,)), policy.Policy()):
        for can_ask in (True, False):
            seen = policy.evaluate(one, intent, (), session="s", now=0.0, can_ask=can_ask)
            told = policy.explain(one, intent, (), session="s", now=0.0, can_ask=can_ask)
            assert replace(told, trail=()) == seen
    if matches[kinds.Effect.DENY]:
        verdict = policy.evaluate(some, intent, (), session="s", now=0.0, can_ask=True)
        assert verdict.effect is kinds.Effect.DENY


def check_folder(path: str) -> None:
    """What an allow for a folder covers stays in it, however the path is written."""
    allow = rules.Pattern("/srv/*")
    if not allow.fits_narrowly(path):
        return
    for _ in range(rules.MAX_DECODINGS):
        for reading in (path, path.partition("\x00")[0], path.replace("\\", "/")):
            plain = "/" + posixpath.normpath(reading).lstrip("/")
            assert f"{plain}/".startswith("/srv/"), (path, plain)
        path = unquote(path)


def check_host(url: str) -> None:
    """What an allow for a host covers goes to no other."""
    if rules.Pattern("https://*.x.example/*").fits_narrowly(url):
        rest = url.removeprefix("https://").replace("\\", "/")
        host = rest.partition("/")[0].partition("?")[0].partition("#")[0]
        assert host.rpartition("@")[2].endswith(".x.example"), url


def check_json(text: str) -> None:
    """A text is read, with a line for everything, or refused with its line."""
    try:
        found = located.locate(text, located.Path("f"))
    except Misconfigured as error:
        check_told(error, "f:")
        return
    assert all(line >= 1 for line in found.lines.values())


def check(data: bytes) -> None:
    split = data[0] % 24 if data else 0
    first, second = text_of(data[1 : 1 + split]), text_of(data[1 + split : 60])
    check_rule(first, second)
    check_folder(second)
    check_folder("/srv/" + second)
    check_host(second)
    check_host("https://" + second)
    check_json(first + second)


def random_loop(seconds: float) -> None:
    source = random.Random(6570)
    end = time.monotonic() + seconds
    runs = 0
    while time.monotonic() < end:
        for _ in range(500):
            check(source.randbytes(source.randrange(40)) if runs % 3 == 0 else few_bytes(source))
            runs += 1
    print(f"{runs} random inputs, nothing found")


def few_bytes(source: random.Random) -> bytes:
    """Only bytes that pick a piece, and a rule's beginning, which makes valid rules common."""
    head = [source.randrange(24), source.randrange(8), 8 + source.randrange(6)]
    return bytes(head + [source.randrange(len(PIECES)) for _ in range(source.randrange(24))])


if __name__ == "__main__":
    if atheris is None:
        limits = [a.partition("=")[2] for a in sys.argv if a.startswith("-max_total_time=")]
        random_loop(float(limits[0]) if limits else 60.0)
    else:
        atheris.Setup(sys.argv, check)
        atheris.Fuzz()
