"""Feed arbitrary bytes to the JSON-RPC codec.

    python fuzz/fuzz_codec.py [libFuzzer options, e.g. -max_total_time=60 CORPUS_DIR]

Holds: `decode` returns messages or raises BadMessage and nothing else; it agrees with the slow
reading in tests/jsonrpc/reference.py; what it accepts can be written and read again; `find_id`
never raises. Needs atheris, which is no dependency of dragoman: pip install atheris.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

with atheris.instrument_imports(include=["dragoman.jsonrpc", "json", "tests.jsonrpc"]):
    from dragoman.errors import BadMessage
    from dragoman.jsonrpc import codec
    from dragoman.jsonrpc.message import Batch, Failure, Notification, Request
    from tests.jsonrpc.reference import Unreadable, read
    from tests.jsonrpc.views import view_frame

# Frames to start from: one of each kind, and one of each trap.
SEEDS = [
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{"a":[1]}}}',
    b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1.5e-3}}',
    b'{"jsonrpc":"2.0","id":"a","result":{"content":[]}}',
    b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"m","data":null}}',
    b'[{"jsonrpc":"2.0","id":1,"method":"ping"},1]',
    rb'{"jsonrpc":"2.0","id":1,"\u0069d":2,"method":"\u003a","params":{"a":":","a":1}}',
    rb'{"jsonrpc":"2.0","method":"\ud83d\ude42","params":{"x":["]","\"]\\"]}}',
    b'{"jsonrpc":"2.0","method":"m","params":{"x":' + b'["]",' * 130 + b"0" + b"]" * 130 + b"}}",
]


def _encode_again(frame: bytes) -> None:
    message = codec.decode(frame)
    if isinstance(message, Batch):
        return
    if isinstance(message, Request):
        again = codec.request(message.id, message.method, bytes(message.params))
    elif isinstance(message, Notification):
        again = codec.notification(message.method, bytes(message.params))
    elif isinstance(message, Failure):
        again = codec.failure(message.id, message.error)
    else:
        again = codec.success(message.id, bytes(message.result))
    assert codec.decode(again) == message


def check(frame: bytes) -> None:
    """One input through every property."""
    codec.find_id(frame[:64], frame[-64:])
    try:
        expected = json.dumps(read(frame), sort_keys=True)
    except Unreadable as fault:
        expected = fault.kind
    try:
        got = json.dumps(view_frame(codec.decode(frame)), sort_keys=True)
    except BadMessage as fault:
        got = fault.kind
    else:
        _encode_again(frame)
    assert got == expected, (frame, got, expected)


def main() -> None:
    """Check the seeds, then hand over to the fuzzer."""
    for seed in SEEDS:
        check(seed)
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
