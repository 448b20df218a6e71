"""The listening socket: bound once, handed to every front end, and who holds a taken port."""

from __future__ import annotations

import errno
import socket

from mlguard.errors import ConflictError, UsageError

_BACKLOG = 2048
#: Module that a front end of mlguard runs.
_FRONT = "mlguard.server_app"


def listen(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; port 0 picks a free one.

    Raises
    ------
    ConflictError
        If the port is taken; the message names by whom, and the hint what to type.
    UsageError
        If the address is none of this machine's, or may not be used.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise UsageError(
            f"cannot listen on {host!r}: {error.strerror}",
            hint="use 127.0.0.1 for this machine only, 0.0.0.0 for every network",
        ) from error
    # With the protocol spelt out: asyncio sends small packets at once only on sockets that say
    # they are TCP, and an answer in two packets would wait 40 ms for the first one's receipt.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            holder = port_holder(port)
            raise ConflictError(
                f"port {port} of {host} is taken by {holder[1]}",
                hint=(f"stop it (kill {holder[0]}), or " if holder[0] else "")
                + f"take another port: --port {port + 1 if port < 65535 else 0}",
                pid=holder[0],
            ) from error
        raise UsageError(
            f"cannot listen on port {port} of {host}: {error.strerror}",
            hint="take a port from 1024 on with --port, and an address of this machine with --host",
        ) from error
    return listener


def port_holder(port: int) -> tuple[int | None, str]:
    """Return the process that listens on a port and how people know it, as far as we may see."""
    import psutil

    try:
        for one in psutil.net_connections(kind="tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid:
                holder = psutil.Process(one.pid)
                above = holder.parent()
                if above is not None and _FRONT in holder.cmdline():
                    # Its supervisor would start a front end again: that is whom to stop.
                    holder = above
                command = " ".join(holder.cmdline())[:120]
                return holder.pid, f"process {holder.pid} ({command})"
    except psutil.Error:
        pass
    return None, "another process"
