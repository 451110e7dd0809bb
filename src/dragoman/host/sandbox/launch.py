"""A program, not a module: it does what bubblewrap has no option for, and becomes bubblewrap.

    python -I -S launch.py [--ignore-term] -- BUBBLEWRAP ARGUMENT...
    python -I -S launch.py [--ignore-term] DOOR

With --ignore-term bubblewrap does not end by a SIGTERM that is for its server, which has to ask for
it again. In both ways this takes away the system calls by which programs share keys: a keyring of the user's session
would be open to the sandbox, too.

DOOR is a Unix socket of the host. A line of JSON comes from it: `addresses` to add to the loopback
interface of a network that is made here, `listen` (pairs of address and port) to listen on in it,
the `hosts` file, `argv` of bubblewrap with the place `at` in it where options may be added, and the
`env` to add, in which "{proxy}" is the first of those listening. The listening sockets go through
the door, and the host takes the connections: nothing but its decision leads out of this network.

It starts no process, leaves none, and hands on no descriptor but those it was started with and the
text of the hosts file, which bubblewrap reads and closes.

It needs Linux and nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import stat
import struct
import sys

__all__ = ["main"]

# 10 s: the host answers at once unless it is gone.
_PATIENCE_S = 10.0
# A line of 64 targets and some hundred options is some 20 KiB; the environment is not in it.
_MAX_PLAN_BYTES = 1024 * 1024

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000

# linux/rtnetlink.h, linux/netlink.h, linux/if_addr.h
_RTM_NEWLINK = 16
_RTM_NEWADDR = 20
_NLM_F_REQUEST_ACK = 0x5
_NLM_F_CREATE = 0x400
_NLMSG_ERROR = 2
_IFA_F_NODAD = 0x2
_RT_SCOPE_HOST = 254
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFF_UP = 1

# linux/prctl.h, linux/seccomp.h, linux/filter.h, linux/audit.h
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_FILTER = 2
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000
_LOAD = 0x20
_JUMP_IF_SAME = 0x15
_RETURN = 0x06
# add_key, request_key and keyctl of each kind of program that a machine runs; x32 has a bit more.
_X86_64 = (248, 249, 250)
_KEY_CALLS = {
    "x86_64": (
        (0xC000003E, (*_X86_64, *(one | 0x40000000 for one in _X86_64))),
        (0x40000003, (286, 287, 288)),
    ),
    "aarch64": ((0xC00000B7, (217, 218, 219)), (0x40000028, (309, 310, 311))),
}

# The first interface of every network is its loopback.
_LOOPBACK = 1


def main(args: list[str]) -> None:
    """Do all of it; ends the process with a line on stderr when something is refused."""
    try:
        environ = _first_environ()
        if args[0] == "--ignore-term":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            args = args[1:]
        if args[0] == "--":
            argv = args[1:]
        else:
            argv, more = _behind(args[0])
            environ |= {name.encode(): value.encode() for name, value in more.items()}
        # One that is setuid needs the privilege that the filter asks us to give up.
        if not os.stat(argv[0]).st_mode & stat.S_ISUID:
            _forbid_keys()
        # What the interpreter has changed for itself.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.execve(argv[0], argv, environ)  # noqa: S606 - the host says what
    except OSError as error:
        sys.stderr.write(f"dragoman: the sandbox cannot be made: {error}\n")
        sys.exit(1)


def _behind(door: str) -> tuple[list[str], dict[str, str]]:
    """Make the network, and hand out what listens in it; the line to go on with, and its env."""
    # Here: it takes longer to load than all the rest, and most sandboxes need none.
    import json

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(_PATIENCE_S)
        channel.connect(door)
        # What it says is done outside of the sandbox: only who started us may say it. Another
        # server, one that may write where the door is, could have put up its own.
        credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if struct.unpack("iII", credentials)[0] != os.getppid():
            raise OSError("the door is not the host's")
        plan = json.loads(_read_plan(channel))
        _enter_network()
        for address in plan["addresses"]:
            _add_address(address)
        listening = [_listen(address, port) for address, port in plan["listen"]]
        socket.send_fds(channel, [b"L"], [one.fileno() for one in listening])
        if channel.recv(1) != b"G":
            raise OSError("the host has closed the door")
    proxy = "{}:{}".format(*listening[0].getsockname()[:2])
    for one in listening:
        one.close()
    env = {name: value.replace("{proxy}", proxy) for name, value in plan["env"].items()}
    argv = plan["argv"]
    argv[plan["at"] : plan["at"]] = ["--ro-bind-data", str(_text(plan["hosts"])), "/etc/hosts"]
    return argv, env


def _read_plan(channel: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        chunk = channel.recv(65536)
        if not chunk or len(line) > _MAX_PLAN_BYTES:
            raise OSError("the host has closed the door")
        line += chunk
    return line


def _first_environ() -> dict[bytes, bytes]:
    """The environment as it was given: an interpreter adds to its own."""
    with open("/proc/self/environ", "rb") as file:
        given = file.read()
    pairs = (one.partition(b"=") for one in given.split(b"\0") if b"=" in one)
    return {name: value for name, _, value in pairs}


def _enter_network() -> None:
    uid, gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET):
        error = os.strerror(ctypes.get_errno())
        raise OSError(f"{error}: a program may not have a user namespace here")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    _ask_kernel(_RTM_NEWLINK, 0, struct.pack("=BxHiII", 0, 0, _LOOPBACK, _IFF_UP, _IFF_UP))


def _forbid_keys() -> None:
    """Let no program from here on use the kernel's keyrings; it is told that there are none."""
    blocks = _KEY_CALLS.get(os.uname().machine)
    if blocks is None:
        return
    code = [(_LOAD, 0, 0, 4)]
    for arch, numbers in blocks:
        body = [(_LOAD, 0, 0, 0)]
        for place, number in enumerate(numbers):
            # To the refusal at the end of the block, or on to the next number.
            body.append((_JUMP_IF_SAME, len(numbers) - place, 0, number))
        body += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE | errno.ENOSYS)]
        code += [(_JUMP_IF_SAME, 0, len(body), arch), *body]
    code.append((_RETURN, 0, 0, _ALLOW))
    packed = b"".join(struct.pack("=HBBI", *one) for one in code)
    text = ctypes.create_string_buffer(packed, len(packed))
    program = struct.pack("HP", len(code), ctypes.addressof(text))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _FILTER, program, 0, 0)):
        if libc.prctl(*(one if isinstance(one, bytes) else ctypes.c_ulong(one) for one in call)):
            raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")


def _add_address(text: str) -> None:
    """One more address of the loopback interface."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    packed = socket.inet_pton(family, text)
    body = struct.pack("=BBBBi", family, 8 * len(packed), _IFA_F_NODAD, _RT_SCOPE_HOST, _LOOPBACK)
    for kind in (_IFA_LOCAL, _IFA_ADDRESS):
        body += struct.pack("=HH", 4 + len(packed), kind) + packed
    _ask_kernel(_RTM_NEWADDR, _NLM_F_CREATE, body)


def _ask_kernel(kind: int, flags: int, body: bytes) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as kernel:
        kernel.bind((0, 0))
        head = struct.pack("=IHHII", 16 + len(body), kind, _NLM_F_REQUEST_ACK | flags, 1, 0)
        kernel.send(head + body)
        answer = kernel.recv(4096)
    said, code = struct.unpack_from("=4xH10xi", answer)
    if said == _NLMSG_ERROR and code:
        raise OSError(-code, os.strerror(-code))


def _listen(address: str, port: int) -> socket.socket:
    listening = socket.socket(
        socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM
    )
    try:
        listening.bind((address, port))
        # 128: connections that come at once wait here until the host takes them.
        listening.listen(128)
    except OSError as error:
        raise OSError(f"{address} port {port}: {error.strerror}") from None
    return listening


def _text(text: str) -> int:
    """A descriptor, open for the program that follows, from which this text is read."""
    number = os.memfd_create("hosts", 0)
    os.write(number, text.encode())
    os.lseek(number, 0, os.SEEK_SET)
    return number


if __name__ == "__main__":
    main(sys.argv[1:])
