"""Whether hosts can be made here out of namespaces, found by trying all that it takes.

Invariant: what is tried is independent of the lab's own code, so that a fault in that code is no reason to skip.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess

from tests.lab.waiting import PATIENCE

PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
"""People often have no sbin in theirs, and ``ip`` and ``nft`` are there."""
_FLAGS = "--user --map-root-user --net --mount --pid --fork --kill-child --mount-proc"
UNSHARE = ["unshare", *_FLAGS.split()]
"""Begins the command line of what shall be root, and process 1, in namespaces of its own."""
_TRIAL = """
mount -t tmpfs lab /run
mkdir /run/netns
ip netns add host
ip link add br0 type bridge mcast_snooping 0
ip -n host link add eth0 type veth peer name p1
ip netns exec host true
nft add table bridge faults
nft add chain bridge faults forward '{ type filter hook forward priority 0; }'
nft add rule bridge faults forward iifname p1 meta pkttype multicast numgen random mod 10000 '<' 1 drop
"""


@functools.cache
def obstacle() -> str | None:
    """Why there can be no lab here, found by trying what it takes; None if there can."""
    missing = [tool for tool in ("unshare", "ip", "nft", "mount") if shutil.which(tool, path=PATH) is None]
    if missing:
        return f"a lab of several hosts needs {', '.join(missing)} (packages util-linux, iproute2, nftables)"
    tried = subprocess.run(
        [*UNSHARE, "sh", "-exc", _TRIAL],
        env={**os.environ, "PATH": PATH},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if tried.returncode == 0:
        return None
    return f"a lab of several hosts cannot be made: {'; '.join(tried.stderr.strip().splitlines()[-2:])}"
