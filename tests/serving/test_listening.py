"""A port that is taken names the process that somebody should stop."""

import os
import subprocess
import sys

import pytest

from mlguard.serving.listening import listen, port_holder

CHILD = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def held():
    """Have a child process listen, told what it is by its command line."""
    children = []

    def hold(*words):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        return child.pid, int(child.stdout.readline())

    yield hold
    for child in children:
        child.communicate()


def test_a_stranger_is_named_itself(held):
    """Whoever listens is who to stop."""
    pid, port = held()
    assert port_holder(port)[0] == pid


def test_a_front_end_names_its_supervisor(held):
    """A front end that is stopped comes back: its supervisor is who to stop."""
    _, port = held("mlguard.server_app")
    assert port_holder(port)[0] == os.getpid()


def test_a_free_port_is_taken_and_given_back():
    """Listening twice works once the first has closed."""
    first = listen("127.0.0.1", 0)
    port = first.getsockname()[1]
    first.close()
    listen("127.0.0.1", port).close()
