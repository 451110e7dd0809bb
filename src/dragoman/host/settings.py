"""Policy files: managed, the user's, the project's, and rules on the command line, as one policy.

No layer can loosen another: rules of all layers count together, and of a setting the strictest
value holds. A project's file comes with somebody's repository, so until the user trusts it, it may
only tighten. Every fault of every file is reported at once, and with a fault there is no policy.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from dragoman.client.files import read_bounded
from dragoman.errors import Misconfigured
from dragoman.host.kinds import Effect
from dragoman.host.located import MAX_BYTES, Located, Pointer, read_located
from dragoman.host.policy import (
    AuditRules,
    Bounds,
    Ignored,
    Origin,
    PinRules,
    Policy,
    SamplingRules,
)
from dragoman.host.rules import Layer, Rule, suggestion

__all__ = ["PolicyPaths", "default_policy_paths", "load_policy", "project_digest"]

VERSION = 1

# What comes with a repository and takes effect by itself, once it is trusted.
_PROJECT_FILES = ((".dragoman", "policy.json"), ("dragoman.lock",))

_UNTRUSTED = "the project is not trusted"


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyPaths:
    """Where the policy files are, whether they exist or not."""

    managed: Path | None
    user: Path
    project: Path


def default_policy_paths(
    project_folder: str | Path, environ: Mapping[str, str] = os.environ
) -> PolicyPaths:
    """Where they are unless somebody says otherwise."""
    managed: Path | None = Path("/etc/dragoman/policy.json")
    if os.name == "nt":
        # A folder of that name may be made by anybody there.
        data = environ.get("PROGRAMDATA")
        managed = Path(data, "dragoman", "policy.json") if data else None
    config = Path(environ.get("XDG_CONFIG_HOME", ""))
    if not config.is_absolute():
        # As the base directory specification says; a relative one would be the repository's.
        home = environ.get("HOME")
        config = (Path(home) if home else Path.home()) / ".config"
    return PolicyPaths(
        managed=managed,
        user=config / "dragoman" / "policy.json",
        project=Path(project_folder) / ".dragoman" / "policy.json",
    )


def project_digest(project_folder: str | Path) -> str:
    """What a trust in a project is bound to: the bytes of its policy file and of its lock file.

    That either is missing counts, too: it may come with the next update.

    Raises:
        Misconfigured: one of them is there and cannot be read.
    """
    sha = hashlib.sha256()
    for name in _PROJECT_FILES:
        path = Path(project_folder, *name)
        data = read_bounded(path, MAX_BYTES)
        # Whether it is there and how long it is: no two projects run together to the same bytes.
        found = data or b""
        sha.update(bytes([data is not None]) + len(found).to_bytes(8, "big") + found)
    return f"sha256:{sha.hexdigest()}"


# --- what may stand in a file -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Choice:
    """One of these texts, the strictest first."""

    values: tuple[str, ...]
    default: str

    def fault(self, value: Any) -> str | None:
        if value in self.values and isinstance(value, str):
            return None
        near = suggestion(value, self.values) if isinstance(value, str) else ""
        return f"must be one of {', '.join(map(repr, self.values))}{near}"

    def strictness(self, value: Any) -> float:
        return -self.values.index(value)


@dataclass(frozen=True, slots=True)
class _Number:
    """A number in these bounds; the smaller, the stricter."""

    low: int
    high: int
    unit: str
    default: float
    is_whole: bool = True

    def fault(self, value: Any) -> str | None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_right = isinstance(value, int) or not self.is_whole
        if is_number and is_right and self.low <= value <= self.high:
            return None
        what = "a whole number" if self.is_whole else "a number"
        return f"must be {what} of {self.unit} from {self.low} to {self.high}"

    def strictness(self, value: Any) -> float:
        return -float(value)


_SETTINGS: Mapping[str, _Choice | _Number] = {
    "defaultMode": _Choice(("deny", "ask"), "ask"),
    "sampling.default": _Choice(("deny", "ask", "allow"), SamplingRules().default),
    "sampling.release": _Choice(("ask", "allow"), SamplingRules().release),
    # 0 is none at all; 600 a minute is ten a second, which no person watches any more.
    "sampling.maxPerMinute": _Number(0, 600, "requests", SamplingRules().max_per_minute),
    # 100 million: more than a day of any model; a bound of that size is a slip of the hand.
    "sampling.maxTokensPerSession": _Number(
        0, 100_000_000, "tokens", SamplingRules().max_tokens_per_session
    ),
    "sampling.maxTokensPerRequest": _Number(
        0, 100_000_000, "tokens", SamplingRules().max_tokens_per_request
    ),
    "pins.mode": _Choice(("frozen", "strict", "warn"), PinRules().mode),
    "pins.newTools": _Choice(("hide", "ask"), PinRules().new_tools),
    # The less is written of what people do, the stricter.
    "audit.args": _Choice(("digest", "shape", "full"), AuditRules().args),
    "audit.onWriteFailure": _Choice(("deny", "warn"), AuditRules().on_write_failure),
    "audit.sync": _Choice(("disk", "write"), AuditRules().sync),
    # A second is the least a person needs, a day the most that a question stays meant.
    "limits.approvalTimeout": _Number(1, 86_400, "seconds", Bounds().approval_timeout_s, False),
    "limits.maxWaiting": _Number(1, 1000, "questions", Bounds().max_waiting),
    "limits.maxInputRounds": _Number(1, 1000, "rounds", Bounds().max_input_rounds),
}
_FIELDS = {
    "sampling.default": "default",
    "sampling.release": "release",
    "sampling.maxPerMinute": "max_per_minute",
    "sampling.maxTokensPerSession": "max_tokens_per_session",
    "sampling.maxTokensPerRequest": "max_tokens_per_request",
    "pins.mode": "mode",
    "pins.newTools": "new_tools",
    "audit.args": "args",
    "audit.onWriteFailure": "on_write_failure",
    "audit.sync": "sync",
    "limits.approvalTimeout": "approval_timeout_s",
    "limits.maxWaiting": "max_waiting",
    "limits.maxInputRounds": "max_input_rounds",
}
# What only its owner decides: an untrusted file must not thin out the record of what it does.
_NOT_FOR_STRANGERS = {"audit.args"}
# Where the managed file's word is the last one, since neither end is the stricter for everybody.
_MANAGED_IS_FINAL = {"audit.args"}

_MODELS = "sampling.models"
_EFFECTS = (Effect.DENY, Effect.ASK, Effect.ALLOW)
_GROUPS = ("permissions", "sampling", "pins", "audit", "limits")
_KEYS: Mapping[str, tuple[str, ...]] = {
    "": ("$schema", "version", "defaultMode", "servers", *_GROUPS),
    "permissions": tuple(str(effect) for effect in _EFFECTS),
    **{
        group: tuple(
            name.partition(".")[2] for name in (*_SETTINGS, _MODELS) if name.startswith(f"{group}.")
        )
        for group in _GROUPS[1:]
    },
}


# --- one file ---------------------------------------------------------------------------------


class _File:
    """What one file says; its faults are collected, not raised."""

    def __init__(
        self,
        located: Located,
        layer: Layer,
        servers: Collection[str] | None,
        *,
        is_trusted: bool,
    ) -> None:
        self.layer = layer
        self.is_trusted = is_trusted
        self.rules: list[Rule] = []
        self.values: dict[str, Any] = {}
        self.origins: dict[str, Origin] = {}
        self.ignored: list[Ignored] = []
        self.faults: list[str] = []
        self._located = located
        self._servers = servers
        self._read(located.value)

    def _read(self, whole: Any) -> None:
        if not isinstance(whole, dict):
            self._fault((), "a policy must be an object")
            return
        self._check_names((), whole)
        version = whole.get("version")
        if "version" not in whole:
            self._fault((), f'a policy says which "version" it is written for; this is {VERSION}')
        elif isinstance(version, bool) or version != VERSION:
            self._fault(("version",), f"the version must be {VERSION}, and is {_shown(version)}")
        self._take("defaultMode", ("defaultMode",), whole)
        more = self._texts(("servers",), whole.get("servers", []))
        if self._servers is not None:
            self._servers = {*self._servers, *more}
        for group in _GROUPS:
            inside = whole.get(group, {})
            if not isinstance(inside, dict):
                self._fault((group,), f"{group!r} must be an object")
                continue
            self._check_names((group,), inside)
            for name in _SETTINGS:
                if name.startswith(f"{group}."):
                    self._take(name, (group, name.partition(".")[2]), inside)
        permissions = whole.get("permissions")
        if isinstance(permissions, dict):
            self._read_rules(permissions)
        sampling = whole.get("sampling")
        if isinstance(sampling, dict) and "models" in sampling:
            self._read_models(sampling["models"])

    def _check_names(self, way: Pointer, inside: Mapping[str, Any]) -> None:
        known = _KEYS[str(way[0]) if way else ""]
        for name in inside:
            if name not in known:
                # One that is known elsewhere is in the wrong place, which is more help than a guess.
                homes = [group for group, names in _KEYS.items() if group and name in names]
                hint = f"; it belongs into {homes[0]!r}" if homes else suggestion(name, known)
                self._fault((*way, name), f"{name!a} is not known here{hint}")

    def _take(self, name: str, way: Pointer, inside: Mapping[str, Any]) -> None:
        if way[-1] not in inside:
            return
        value = inside[str(way[-1])]
        fault = _SETTINGS[name].fault(value)
        if fault is not None:
            self._fault(way, f"{name!r} {fault}; it is {_shown(value)}")
            return
        self.values[name] = value
        self.origins[name] = self._origin(way)

    def _texts(self, way: Pointer, value: Any) -> list[str]:
        if not isinstance(value, list):
            self._fault(way, f"{'.'.join(map(str, way))!r} must be a list of texts")
            return []
        found = []
        for index, one in enumerate(value):
            if isinstance(one, str) and one:
                found.append(one)
            else:
                self._fault((*way, index), f"must be a text, and is {_shown(one)}")
        return found

    def _read_models(self, value: Any) -> None:
        way = ("sampling", "models")
        self.values[_MODELS] = tuple(self._texts(way, value))
        self.origins[_MODELS] = self._origin(way)

    def _read_rules(self, permissions: Mapping[str, Any]) -> None:
        seen: dict[str, Effect] = {}
        for effect in _EFFECTS:
            way = ("permissions", str(effect))
            listed = permissions.get(str(effect), [])
            if not isinstance(listed, list):
                self._fault(way, f"{str(effect)!r} must be a list of rules")
                continue
            for index, text in enumerate(listed):
                here = (*way, index)
                if not isinstance(text, str):
                    self._fault(here, f"a rule must be a text, and is {_shown(text)}")
                elif effect is Effect.ALLOW and not self.is_trusted:
                    self._ignore(here, f"allow {_shown(text)}")
                else:
                    self._read_rule(here, text, effect, seen)

    def _read_rule(self, way: Pointer, text: str, effect: Effect, seen: dict[str, Effect]) -> None:
        first = seen.setdefault(text.strip(), effect)
        if first is not effect:
            self._fault(
                way,
                f"the rule {_shown(text)} has no effect under {str(effect)!r}: it stands under "
                f"{str(first)!r}, too, which comes first",
            )
            return
        try:
            rule = Rule.parse(
                text,
                effect=effect,
                layer=self.layer,
                source=self._located.place(way),
                servers=self._servers,
            )
        except Misconfigured as fault:
            self.faults.append(str(fault))
            return
        self.rules.append(replace(rule, only_tightens=not self.is_trusted))

    def _origin(self, way: Pointer) -> Origin:
        return Origin(layer=self.layer, source=self._located.place(way))

    def _ignore(self, way: Pointer, text: str) -> None:
        self.ignored.append(Ignored(source=self._located.place(way), text=text, why=_UNTRUSTED))

    def _fault(self, way: Pointer, text: str) -> None:
        self.faults.append(str(self._located.fault(way, text)))


def _shown(value: Any) -> str:
    """A stranger's value in an error: on one line, escaped, and not too long."""
    text = ascii(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


# --- all of them ------------------------------------------------------------------------------


def load_policy(
    *,
    managed: Path | None = None,
    user: Path | None = None,
    project: Path | None = None,
    must_exist: Collection[Layer] = (),
    is_project_trusted: bool | Callable[[str], bool] = False,
    command_line: Sequence[str] = (),
    servers: Collection[str] | None = None,
) -> Policy:
    """Read the files that exist, and the rules of the command line ("EFFECT RULE" each).

    Of the layers in `must_exist` the file was named by somebody, so that it must be there.
    `is_project_trusted` may be a function of the digest of the project's file, so that the answer
    is about the very bytes that are read. `servers` are all aliases that a rule may speak of; a
    file can name further ones under "servers". None: they are not known.

    Raises:
        Misconfigured: with every fault of every file, a line each, beginning FILE:LINE.
    """
    found: list[_File] = []
    faults: list[str] = []
    layers: tuple[tuple[Layer, Path | None], ...] = (
        ("managed", managed),
        ("user", user),
        ("project", project),
    )
    for layer, path in layers:
        try:
            located = _located(path, is_own=layer != "project", must_exist=layer in must_exist)
        except Misconfigured as fault:
            faults.append(str(fault))
            continue
        if located is None:
            continue
        is_trusted = True
        if layer == "project":
            is_trusted = (
                is_project_trusted
                if isinstance(is_project_trusted, bool)
                else is_project_trusted(located.digest)
            )
        file = _File(located, layer, servers, is_trusted=is_trusted)
        faults += file.faults
        found.append(file)
    rules = [rule for file in found for rule in file.rules]
    for number, text in enumerate(command_line, 1):
        try:
            rules.append(_command_line_rule(text, f"command line:{number}", servers))
        except Misconfigured as fault:
            faults.append(str(fault))
    if faults:
        raise Misconfigured("\n".join(faults))
    return _merged(found, tuple(rules))


def _located(path: Path | None, *, is_own: bool, must_exist: bool) -> Located | None:
    """The file, or None if there is none; a link that leads nowhere is a fault."""
    if path is None or not (must_exist or os.path.lexists(path)):
        return None
    if is_own and os.name == "posix":
        try:
            found = path.stat()
        except OSError as error:
            raise Misconfigured(f"{path}: cannot be read: {error.strerror or error}") from None
        if found.st_mode & 0o002:
            raise Misconfigured(f"{path}: everybody may write it; run: chmod o-w {path}")
        if found.st_uid not in (0, os.geteuid()):
            raise Misconfigured(f"{path}: belongs to another user, who could write it")
    return read_located(path)


def _command_line_rule(text: str, source: str, servers: Collection[str] | None) -> Rule:
    word, _, rest = text.strip().partition(" ")
    effects = {str(effect): effect for effect in _EFFECTS}
    if word not in effects:
        raise Misconfigured(
            f"{source}: {_shown(text)} must begin with allow, ask or deny, as in "
            "'deny tool(*/delete_*)'"
        )
    return Rule.parse(
        rest, effect=effects[word], layer="command line", source=source, servers=servers
    )


def _merged(files: Sequence[_File], rules: tuple[Rule, ...]) -> Policy:
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    ignored = [one for file in files for one in file.ignored]
    for name, kind in _SETTINGS.items():
        for file in files:
            if name not in file.values:
                continue
            value = file.values[name]
            now = values.get(name, kind.default)
            is_stricter = kind.strictness(value) > kind.strictness(now)
            before = origins.get(name)
            why = ""
            if value != now and not file.is_trusted:
                is_refused = not is_stricter or name in _NOT_FOR_STRANGERS
                why = _UNTRUSTED if is_refused else ""
            elif value != now and before is not None:
                is_final = name in _MANAGED_IS_FINAL and before.layer == "managed"
                if is_final or not is_stricter:
                    why = f"{before.source} says {_shown(now)}"
            if why:
                source = file.origins[name].source
                ignored.append(Ignored(source=source, text=f"{name} {_shown(value)}", why=why))
            elif value != now or before is None:
                values[name] = value
                origins[name] = file.origins[name]
    models = [file.values[_MODELS] for file in files if _MODELS in file.values]
    for file in files:
        if _MODELS in file.values:
            origins.setdefault(_MODELS, file.origins[_MODELS])
    sampling = _filled(SamplingRules(), "sampling", values)
    if models:
        sampling = replace(sampling, models=models[0], further_models=tuple(models[1:]))
    return Policy(
        rules=rules,
        default_mode=values.get("defaultMode", "ask"),
        sampling=sampling,
        pins=_filled(PinRules(), "pins", values),
        audit=_filled(AuditRules(), "audit", values),
        bounds=_filled(Bounds(), "limits", values),
        ignored=tuple(ignored),
        origins=origins,
    )


def _filled(record: Any, group: str, values: Mapping[str, Any]) -> Any:
    """The record with the values of its group in place of what is built in."""
    known = {one.name for one in fields(record)}
    changes = {
        _FIELDS[name]: value for name, value in values.items() if name.startswith(f"{group}.")
    }
    assert changes.keys() <= known
    return replace(record, **changes)
