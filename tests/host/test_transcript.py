"""What stays of a conversation when it does not fit."""

from __future__ import annotations

import pytest

from dragoman.host.models.base import estimate_tokens
from dragoman.host.models.words import blocks_of
from dragoman.host.transcript import NO_PICTURE, REMOVED, Transcript
from dragoman.model.content import (
    ImageContent,
    TextContent,
    ToolResultContent,
    ToolUseContent,
)
from tests.host.talk import PNG, assert_valid

PICTURE = ImageContent(data=PNG, mime_type="image/png")


def turn(transcript: Transcript, number: int, *results: str | ImageContent) -> None:
    """Words, and a call for each of these results."""
    transcript.say("user", [TextContent(text=f"question {number}")], begins=True)
    for at, one in enumerate(results):
        key = f"u{number}.{at}"
        block = TextContent(text=one) if isinstance(one, str) else one
        transcript.say("assistant", [ToolUseContent(id=key, name="t", input={"n": at})])
        transcript.say("user", [ToolResultContent(tool_use_id=key, content=[block])])


def words(transcript: Transcript) -> str:
    return str([blocks_of(message) for message in transcript.messages])


def test_a_turn_that_alone_does_not_fit_costs_no_other_turn() -> None:
    transcript = Transcript(estimate_tokens)
    turn(transcript, 1, "word " * 100)
    transcript.say("assistant", [TextContent(text="so it is")])
    transcript.say("user", [TextContent(text="word " * 5000)], begins=True)
    before = transcript.messages
    assert transcript.trim(1000).messages == 0
    assert transcript.messages == before
    transcript.take_back()
    assert transcript.messages == before[:-1]
    assert transcript.tokens < 1000


def test_what_the_model_has_answered_is_not_taken_back() -> None:
    transcript = Transcript(estimate_tokens)
    turn(transcript, 1)
    transcript.say("assistant", [TextContent(text="yes")])
    transcript.take_back()
    assert len(transcript) == 2


def test_a_long_turn_loses_its_first_calls_and_keeps_its_words() -> None:
    transcript = Transcript(estimate_tokens)
    transcript.say("user", [TextContent(text="write all of them")], begins=True)
    for number in range(20):
        key = f"u{number}"
        use = ToolUseContent(id=key, name="write", input={"text": f"file {number} " + "x" * 700})
        transcript.say("assistant", [use])
        transcript.say("user", [ToolResultContent(tool_use_id=key, content=[])])
    gone = transcript.trim(1000)
    assert gone.messages > 0
    assert transcript.tokens <= 1000
    assert "write all of them" in words(transcript)
    assert "file 19" in words(transcript)
    assert "file 1 " not in words(transcript)
    assert_valid(transcript.messages)


def test_a_prompt_of_many_messages_goes_as_a_whole_or_stays() -> None:
    transcript = Transcript(estimate_tokens)
    for role, text in (("user", "Begin."), ("assistant", "an example"), ("user", "go on")):
        transcript.say(role, [TextContent(text=text * 50)], begins=text == "Begin.")
    transcript.say("assistant", [TextContent(text="answer")])
    turn(transcript, 2)
    transcript.trim(transcript.tokens - 1)
    assert [message.role for message in transcript.messages] == ["user"]
    assert "question 2" in words(transcript)


def test_only_as_many_turns_go_as_have_to() -> None:
    transcript = Transcript(estimate_tokens)
    for number in range(10):
        turn(transcript, number)
        transcript.say("assistant", [TextContent(text="answer")])
    one = transcript.tokens // 10
    assert transcript.trim(one * 7).messages == 6
    assert "question 2" not in words(transcript)
    assert "question 3" in words(transcript)


def test_the_latest_pictures_stay_as_far_as_a_request_may_have_them() -> None:
    transcript = Transcript(estimate_tokens)
    for number in range(8):
        turn(transcript, number, *[PICTURE] * 5)
    gone = transcript.trim(1_000_000)
    assert gone.pictures == 20
    texts = words(transcript)
    assert texts.count(NO_PICTURE) == 20
    assert NO_PICTURE not in texts[texts.index("question 4") :]
    assert transcript.drop_pictures() == 20
    assert transcript.drop_pictures() == 0
    assert_valid(transcript.messages)


def test_pictures_go_by_their_size_as_well() -> None:
    transcript = Transcript(estimate_tokens)
    large = ImageContent(data=PNG + "A" * 4_900_000, mime_type="image/png")
    transcript.say("user", [TextContent(text="see"), *[large] * 6], begins=True)
    assert transcript.trim(1_000_000).pictures == 2
    assert [isinstance(one, ImageContent) for one in blocks_of(transcript.messages[0])] == [
        False, False, False, True, True, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize("budget", [0, 300, 700, 1500, 3000, 5000, 100_000])
def test_the_sum_is_that_of_the_messages_whatever_went(budget: int) -> None:
    transcript = Transcript(estimate_tokens)
    for number in range(5):
        turn(transcript, number, "word " * 200, PICTURE, "short")
    transcript.trim(budget)
    again = Transcript(estimate_tokens)
    for message in transcript.messages:
        again.say(message.role, blocks_of(message))
    assert transcript.tokens == again.tokens
    assert_valid(transcript.messages)
    if budget == 3000:
        assert REMOVED in words(transcript)


def test_a_long_conversation_is_trimmed_in_one_pass() -> None:
    counted = 0

    def count(text: str) -> int:
        nonlocal counted
        counted += 1
        return 20

    transcript = Transcript(count)
    for number in range(5000):
        turn(transcript, number)
        transcript.say("assistant", [TextContent(text="answer")])
    counted = 0
    transcript.trim(1000)
    assert transcript.tokens <= 1000
    assert counted == 0
