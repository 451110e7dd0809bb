"""Feed arbitrary templates, values and URIs to `dragoman.model.uri_template`.

    python fuzz/fuzz_uri_template.py [-max_total_time=60] [libFuzzer options]

Needs atheris; without it, a plain random loop runs for a minute (or `-max_total_time` seconds).
Ends with a traceback at the first input that breaks a promise.
"""

from __future__ import annotations

import random
import re
import sys
import time

try:
    import atheris
except ImportError:
    atheris = None

if atheris is None:
    from dragoman.model import uri_template
else:
    with atheris.instrument_imports(include=["dragoman.model.uri_template"]):
        from dragoman.model import uri_template

# What a template or a URI is made of: one byte picks a piece, so few bytes give long valid text.
PIECES = [
    *["{a}", "{b}", "{+c}", "{+d}", "{/e}", "{/f*}", "{.g}", "{;h,i*}", "{?j,k*}", "{&l}", "{#m}"],
    *["{a:2}", "{a,b*}", "{", "}", "+", "*", ":3", ",", ".", "/", "-", "#", "?", "&", ";", "="],
    *["..", "a", "b", "j", "k", "x://", "%2F", "%2e", "%5C", "%00", "%C3%A9", "%C0%AE", "%", "A"],
    *["é", "\u2028", "\ud800", "\x00", " ", "\\", "C:", "~", "j=", "%41", ".json"],
]


def text_of(data: bytes) -> str:
    return "".join(PIECES[byte] if byte < len(PIECES) else chr(byte) for byte in data)


def check_values(template: uri_template.UriTemplate, found: uri_template.UriMatch) -> None:
    """No value may hold what the module promises to refuse."""
    assert set(found) <= set(template.variables)
    assert set(found) >= set(template.variables) - template.optional
    in_paths = re.findall(r"\{([+./]?)([^{}#;?&+./][^{}]*)\}", template.text)
    guarded = {re.sub(r"[*:].*", "", n) for _, names in in_paths for n in names.split(",")}
    reserved = set(re.findall(r"\w+", " ".join(re.findall(r"\{\+([^{}]*)\}", template.text))))
    for name, value in found.items():
        texts = [value] if isinstance(value, str) else list(value)
        if isinstance(value, dict):
            texts += value.values()
        for text in texts:
            parts = re.split(r"[/\\]", text)
            assert not any(part.strip(" ") in (".", "..") for part in parts)
            assert not re.search(r"[\x00-\x1f\x7f-\x9f]", text)
            if name in guarded:
                assert "\\" not in text
                assert name in reserved or "/" not in text
                assert not text.startswith("/")


def check_cuts(template: uri_template.UriTemplate, uri: str) -> None:
    """A pattern, where there is one, cuts as the table does."""
    matcher = template._matcher
    assert matcher is not None
    normal = uri_template._normalise(uri)
    if matcher._pattern is None or normal is None:
        return
    found = matcher._pattern.fullmatch(normal)
    head = matcher._head.match(normal)
    table = head and uri_template._cut(matcher._nodes, normal, head.end())
    assert (found and list(found.groups())) == table


def check(data: bytes) -> None:
    split = data[0] % 24 if data else 0
    first, second = text_of(data[1 : 1 + split]), text_of(data[1 + split : 60])
    try:
        template = uri_template.UriTemplate(first)
    except uri_template.UriTemplateError as error:
        if not 0 <= error.position <= len(first):
            raise AssertionError("the position lies outside the template") from error
        return
    values: dict[str, uri_template.UriValue] = {
        name: second[index : index + 5] or index for index, name in enumerate(template.variables)
    }
    try:
        expanded = template.expand(values)
    except uri_template.UriValueError:
        expanded = ""
    for uri in (second, expanded, expanded + second):
        try:
            found = template.match(uri)
            check_cuts(template, uri)
        except (uri_template.AmbiguousUriTemplate, uri_template.TraversalRefused):
            continue
        if found is not None:
            check_values(template, found)


def random_loop(seconds: float) -> None:
    source = random.Random(6570)
    end = time.monotonic() + seconds
    runs = 0
    while time.monotonic() < end:
        for _ in range(1000):
            check(source.randbytes(source.randrange(40)) if runs % 2 else few_bytes(source))
            runs += 1
    print(f"{runs} random inputs, nothing found")


def few_bytes(source: random.Random) -> bytes:
    """Only bytes that pick a piece, which makes valid templates common."""
    return bytes(source.randrange(len(PIECES)) for _ in range(source.randrange(30)))


if __name__ == "__main__":
    if atheris is None:
        limits = [a.partition("=")[2] for a in sys.argv if a.startswith("-max_total_time=")]
        random_loop(float(limits[0]) if limits else 60.0)
    else:
        atheris.Setup(sys.argv, check)
        atheris.Fuzz()
