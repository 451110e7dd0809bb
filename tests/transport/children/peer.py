"""Children with good and bad manners; the first argument names the behaviour.

They use nothing but the standard library, so that what the tests see is the parent's doing.
"""

import os
import signal
import subprocess
import sys
import time

stdin, stdout = sys.stdin.buffer, sys.stdout.buffer


def say(line):
    os.write(1, line + b"\n")


def echo():
    """Answer each line with itself until stdin ends."""
    for line in stdin:
        stdout.write(line)
        stdout.flush()


def exits():
    """Complain on stderr and exit at once, with the given status."""
    sys.stderr.write("first line\nAPI_KEY is missing\n")
    sys.exit(int(sys.argv[2]))


def dies():
    """Answer half a line to the first frame, then end by the given signal."""
    stdin.readline()
    os.write(2, b"about to crash\n")
    os.write(1, b'{"id":1}\n{"id":2,"resu')
    os.kill(os.getpid(), int(sys.argv[2]))


def last_words():
    """Write as much as a pipe holds to both streams, and exit with it unread."""
    os.write(2, b"e" * 10_000 + b"\nlast complaint\n")
    os.write(1, (b'{"id":%07d}\n' % 1) * 4000)
    sys.exit(5)


def floods_stderr():
    """Write megabytes of log lines, then be an echo."""
    block = (b"a log line of one hundred bytes " + b"." * 67 + b"\n") * 10_000
    for _ in range(int(sys.argv[2])):
        os.write(2, block)
    os.write(2, b"the very last line\n")
    echo()


def floods_stdout():
    """Write the given number of megabytes as frames of 1,000 bytes, then one more."""
    block = (b"x" * 999 + b"\n") * 1000
    for _ in range(int(sys.argv[2])):
        stdout.write(block)
    stdout.write(b"done\n")
    stdout.flush()
    echo()


def one_line():
    """Write one line of the given number of megabytes, never held in memory, then be an echo."""
    stdout.write(b'{"id":42,"x":"')
    block = b"x" * 1_000_000
    for _ in range(int(sys.argv[2])):
        stdout.write(block)
    stdout.write(b'"}\n{"id":43}\n')
    stdout.flush()
    echo()


def junk():
    """Write what is no JSON between two frames."""
    os.write(1, b"Starting server...\n\xff\xfe\x00\n\n   \n{}\n")
    echo()


def stubborn():
    """Ignore the end of stdin and SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say(b"ready")
    while True:
        time.sleep(60)


def needs_term():
    """Ignore the end of stdin, and say so when SIGTERM comes."""

    def end(number, frame):
        os.write(2, b"got SIGTERM\n")
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    say(b"ready")
    while True:
        time.sleep(60)


def talks_to_the_end():
    """When stdin ends, write more than a pipe holds before exiting."""
    say(b"ready")
    stdin.read()
    stdout.write((b"x" * 999 + b"\n") * 2000)
    stdout.flush()
    os.write(2, b"said it all\n")


def leaves_grandchild():
    """Start a process that holds all three streams open and tell its id; exit when asked.

    With "deaf" the grandchild ignores SIGTERM.
    """
    # It answers through its own stdout only once it has set its signal handler.
    code = "import os, signal, time\n"
    if "deaf" in sys.argv:
        code += "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    code += "os.write(1, b'%d\\n' % os.getpid())\nwhile True: time.sleep(60)"
    subprocess.Popen([sys.executable, "-S", "-c", code])
    stdin.readline()
    sys.exit(7)


def closes_stdout():
    """Close stdout and go on."""
    say(b"ready")
    os.close(1)
    while True:
        time.sleep(60)


def closes_stdin():
    """Close stdin and go on."""
    os.close(0)
    say(b"ready")
    while True:
        time.sleep(60)


def environment():
    """Tell the environment, the working directory and the session."""
    for name, value in os.environ.items():
        say(f"{name}={value}".encode())
    say(b"cwd " + os.getcwd().encode())
    say(b"leader %d" % (os.getpid() == os.getsid(0) == os.getpgid(0)))
    say(b"descriptors " + " ".join(sorted(os.listdir("/proc/self/fd"))).encode())
    say(b"that is all")
    echo()


globals()[sys.argv[1]]()
