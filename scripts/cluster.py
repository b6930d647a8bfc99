"""`make cluster`: run a node in the foreground and show what to try.

The node is `coord serve` with its defaults. Ctrl-C reaches it directly, since it is in the terminal's foreground
group; this script only waits for it and gives its exit status on.
"""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import time
from pathlib import Path

COORD = Path(sys.executable).with_name("coord")
HOST, PORT = "127.0.0.1", 7379
START_TIMEOUT_S = 30.0

GREETING = """
coord serves at {host}:{port}, with data in ./coord.data. Ctrl-C ends it.
Paste into another terminal, in this directory:

  {coord} put greeting hello
  {coord} get greeting
  {coord} watch --prefix '' &
  {coord} endpoint status -w table

Health and figures: http://{host}:{port}/readyz and /metrics
"""


def is_ready() -> bool:
    """Tell whether the node says that it serves clients."""
    connection = http.client.HTTPConnection(HOST, PORT, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def main() -> int:
    """Run the node until it ends; return its exit status."""
    if is_ready():
        print(f"Something serves at {HOST}:{PORT} already: a node in another terminal?", file=sys.stderr)
        return 1
    node = subprocess.Popen([COORD, "serve"])
    # The node ends on Ctrl-C by itself; this script has to outlive it to tell its status.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: node.terminate())
    deadline = time.monotonic() + START_TIMEOUT_S
    while node.poll() is None and time.monotonic() < deadline:
        if is_ready():
            command = COORD.relative_to(Path.cwd()) if COORD.is_relative_to(Path.cwd()) else COORD
            print(GREETING.format(host=HOST, port=PORT, coord=command), flush=True)
            break
        time.sleep(0.1)
    return node.wait()


if __name__ == "__main__":
    sys.exit(main())
