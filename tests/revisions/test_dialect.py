"""Reading, writing, facts and error numbers."""

from __future__ import annotations

import msgspec
import pytest

from dragoman.errors import InvalidParams, ResourceNotFound, UrlElicitationRequired
from dragoman.jsonrpc.message import ErrorBody
from dragoman.model.base import Record
from dragoman.model.content import TextContent
from dragoman.model.tools import CallToolParams, CallToolResult, Tool
from dragoman.revisions.dialect import Dialect, Loss
from dragoman.revisions.facts import Ask, Facts, Opening
from dragoman.revisions.registry import DIALECTS

NAMES = [dialect.wire for dialect in DIALECTS]


@pytest.mark.parametrize("dialect", DIALECTS, ids=NAMES)
def test_members_we_do_not_know_are_left_aside(dialect: Dialect) -> None:
    raw = b'{"name":"x","inputSchema":{"type":"object","k":1},"future":{"a":1}}'
    assert dialect.lift(Tool, raw) == Tool(name="x", input_schema={"type": "object", "k": 1})


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b'{"content":null}',
        b'{"content":[{"type":"hologram"}]}',
        b'{"content":[{"type":"text"}]}',
        b'{"content":[],"isError":"yes"}',
        b'{"content":[{"type":"resource","resource":{"uri":"a:"}}]}',
        b'{"content":[{"type":"resource","resource":{"uri":"a:","text":"","blob":""}}]}',
    ],
)
def test_a_result_of_the_wrong_shape_is_refused_and_says_where(raw: bytes) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$|content|resource"):
        DIALECTS[0].lift(CallToolResult, raw)


def test_arguments_stay_unread_until_someone_asks() -> None:
    params = DIALECTS[0].lift(CallToolParams, b'{"name":"x","arguments":{"a": 1}}')
    assert bytes(params.raw_arguments) == b'{"a": 1}'
    assert params.arguments == {"a": 1}
    assert DIALECTS[0].lift(CallToolParams, b'{"name":"x"}').arguments == {}


def test_encode_lowers_first() -> None:
    losses: list[Loss] = []
    value = CallToolResult(content=[TextContent(text="x", meta={"k": 1})])
    written = DIALECTS[0].encode(value, losses.append)
    assert msgspec.json.decode(written) == {"content": [{"type": "text", "text": "x"}]}
    assert [str(loss) for loss in losses] == ["TextContent.meta: left out"]


class _Foreign(Record, frozen=True, kw_only=True):
    """A record of an extension, of which the official schemas know nothing."""

    block: TextContent | None = None


def test_a_record_that_no_schema_knows_passes_as_it_is() -> None:
    losses: list[Loss] = []
    value = _Foreign(block=TextContent(text="x", meta={"k": 1}))
    assert DIALECTS[0].lower(value, losses.append) is value
    assert losses == []


def test_what_json_cannot_hold_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        DIALECTS[0].encode(CallToolResult(content=[TextContent(text="\ud800")]), print)


@pytest.mark.parametrize("dialect", DIALECTS, ids=NAMES)
def test_a_missing_resource_has_the_number_of_its_revision(dialect: Dialect) -> None:
    code = -32602 if dialect is DIALECTS[-1] else -32002
    body = dialect.error(ResourceNotFound("a:b"))
    assert body == ErrorBody(code, "resource not found: a:b", {"uri": "a:b"})


def test_other_errors_have_their_own_number_everywhere() -> None:
    for dialect in DIALECTS:
        assert dialect.error(InvalidParams("no", data=[1])) == ErrorBody(-32602, "no", [1])
        assert dialect.error(UrlElicitationRequired("go", [])).code == -32042


def test_facts_change_once_and_in_the_revision_that_changed_them() -> None:
    def history(fact: str) -> list[object]:
        return [getattr(dialect.facts, fact) for dialect in DIALECTS]

    assert history("takes_batches") == [True, True, False, False, False]
    assert history("sends_null_id") == [True, True, True, False, False]
    assert history("completion_is_declared") == [False, True, True, True, True]
    assert history("progress_has_message") == [False, True, True, True, True]
    assert history("has_structured_output") == [False, False, True, True, True]
    assert history("has_elicitation") == [False, False, True, True, True]
    assert history("has_url_elicitation") == [False, False, False, True, True]
    assert history("has_sampling_tools") == [False, False, False, True, True]
    assert history("has_rich_enums") == [False, False, False, True, True]
    assert history("argument_faults_are_results") == [False, False, False, True, True]
    assert history("has_version_header") == [False, False, True, True, True]
    assert history("primes_streams") == [False, False, False, True, False]
    assert history("log_level_per_request") == [False, False, False, False, True]
    assert history("opening") == [Opening.HANDSHAKE] * 4 + [Opening.NONE]
    assert history("ask") == [Ask.DIRECT] * 4 + [Ask.ROUNDS]


def test_every_fact_is_tested_above_or_with_errors() -> None:
    assert set(Facts.__dataclass_fields__) == {
        "argument_faults_are_results",
        "ask",
        "completion_is_declared",
        "has_elicitation",
        "has_rich_enums",
        "has_sampling_tools",
        "has_structured_output",
        "has_url_elicitation",
        "has_version_header",
        "log_level_per_request",
        "opening",
        "primes_streams",
        "progress_has_message",
        "resource_not_found",
        "sends_null_id",
        "takes_batches",
    }


def test_a_revision_evolves_without_touching_the_one_before() -> None:
    base = DIALECTS[0]
    before = (base.methods, base.facts, dict(base.substitutes))
    later = base.evolve(
        wire="later",
        members=base.members,
        adds={"elicitation/create"},
        removes={"ping"},
        facts={"takes_batches": False},
        substitutes={CallToolResult: None},
    )
    assert later.position == 1
    assert later.methods == (base.methods | {"elicitation/create"}) - {"ping"}
    assert not later.facts.takes_batches
    assert CallToolResult not in later.substitutes
    assert (base.methods, base.facts, dict(base.substitutes)) == before
