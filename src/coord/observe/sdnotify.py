"""What systemd is told about the service: the sd_notify protocol, a datagram per message."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping


class Notifier:
    """Speaks to systemd, if it started this process; otherwise every call does nothing.

    Nothing here waits or raises: a service manager that does not listen must not stop a node.
    """

    def __init__(self, address: str = "", watchdog_us: int = 0) -> None:
        self.watchdog_interval_s: float | None = watchdog_us / 2_000_000 if watchdog_us else None
        """How often `watchdog` has to be called, half of what systemd allows; None if it does not watch."""
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
            # An abstract socket is written with an at sign, and named with a NUL.
            self._address = "\0" + address[1:] if address.startswith("@") else address

    @staticmethod
    def from_environ(environ: MutableMapping[str, str]) -> Notifier:
        """Return what the environment asks for, and take it out: no child may speak for this process."""
        address = environ.pop("NOTIFY_SOCKET", "")
        watchdog_us = environ.pop("WATCHDOG_USEC", "")
        watched = environ.pop("WATCHDOG_PID", "")
        if watched and watched != str(os.getpid()):
            watchdog_us = ""
        if not address.startswith(("/", "@")):
            address = ""
        return Notifier(address, int(watchdog_us) if watchdog_us.isdigit() else 0)

    def ready(self, status: str) -> None:
        """Say that clients are served: the log is replayed and the ports are open."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def status(self, text: str) -> None:
        """Say in a line how it goes, for `systemctl status`."""
        self._send(f"STATUS={_line(text)}")

    def watchdog(self) -> None:
        """Say that all is well."""
        self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for `seconds` more from now on, while starting or stopping."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def stopping(self, status: str) -> None:
        """Say that the service ends on purpose."""
        self._send(f"STOPPING=1\nSTATUS={_line(status)}")

    def close(self) -> None:
        """Say no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError:
            return


def _line(text: str) -> str:
    return " ".join(text.split())
