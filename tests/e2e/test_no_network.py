"""Nothing phones home, and nothing needs to: a deploy with the network taken away."""

import re
import shutil
import subprocess
import sys

import pytest

from mlguard.cli.starting import write_template

pytestmark = pytest.mark.soak

#: Brings up the loopback device of a new network namespace, then becomes mlguard.
_INSIDE = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    name = struct.pack("16sh", b"lo", 1)  # IFF_UP
    fcntl.ioctl(any_socket, 0x8914, name)  # SIOCSIFFLAGS
os.execv(sys.executable, [sys.executable, "-P", "-m", "mlguard.cli", *sys.argv[1:]])
"""


def can_isolate():
    """Return whether this user may make a network namespace."""
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not can_isolate(), reason="no unshare -n: needs root on Linux")
def test_a_deploy_works_and_calls_nobody_with_the_network_denied(tmp_path):
    """Every system call that would reach another machine is looked at; there is none."""
    project = tmp_path / "project"
    write_template("project_template", project)
    trace = tmp_path / "trace.txt"
    strace = shutil.which("strace")
    traced = [strace, "-f", "-qq", "-e", "trace=connect,sendto", "-o", str(trace)] if strace else []
    done = subprocess.run(
        ["unshare", "-n", *traced, sys.executable, "-c", _INSIDE, "deploy", "iris"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "v1 is live" in done.stdout
    if not strace:
        pytest.skip("deployed with no network; no strace to see whether anybody was called")
    calls = trace.read_text()
    hosts = re.findall(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"', calls)
    others = {v4 or v6 for v4, v6 in hosts} - {"127.0.0.1", "::1", "0.0.0.0"}
    assert others == set()
