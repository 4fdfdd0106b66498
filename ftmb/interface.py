"""Network interfaces: what must be so for a middlebox to stand at one."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
from pathlib import Path

from ftmb.errors import MachineError

# linux/sockios.h, linux/ethtool.h
SIOCETHTOOL = 0x8946
GET_GRO, GET_FLAGS = 0x2B, 0x25
OFFLOADS = {
    "receive checksums": 0x15,
    "transmit checksums": 0x17,
    "scatter and gather": 0x19,
    "tso": 0x1F,
    "gso": 0x24,
    "gro": 0x2C,
}
FLAG_LRO = 1 << 15
MOST_MTU = 1500  # a packet buffer holds no larger frame
CAP_NET_RAW = 13


class _Value(ctypes.Structure):
    _fields_ = (("command", ctypes.c_uint32), ("data", ctypes.c_uint32))


class _Request(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char * 16), ("value", ctypes.c_void_p))


def _ethtool(name: str, command: int) -> int:
    """Get or switch off one setting of a driver. Raises OSError where it has no such thing."""
    value = _Value(command, 0)
    request = _Request(name.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, request)
    return int(value.data)


def _ask(name: str, command: int) -> int:
    try:
        return _ethtool(name, command)
    except OSError:
        return 0


def plain(name: str) -> None:
    """Switch off every offload of an interface of this network. Raises MachineError.

    Otherwise frames are seen before they are cut to size, without their checksums.
    """
    for what, command in OFFLOADS.items():
        try:
            _ethtool(name, command)
        except OSError as error:
            raise MachineError(f"{name}: cannot switch {what} off: {error.strerror}") from None


def _read(name: str, what: str) -> str:
    return (Path("/sys/class/net") / name / what).read_text(encoding="ascii").strip()


def check(name: str) -> None:
    """Raises MachineError with the remedy if a middlebox cannot stand at this interface."""
    try:
        flags, mtu = int(_read(name, "flags"), 16), int(_read(name, "mtu"))
    except OSError:
        raise MachineError(
            f"interfaces: {name} does not exist here; `ip link` lists those that do"
        ) from None
    if not flags & 1:
        raise MachineError(f"interfaces: {name} is down; `ip link set {name} up`")
    if mtu > MOST_MTU:
        raise MachineError(
            f"interfaces: {name} takes frames of {mtu} bytes, here they have {MOST_MTU} at most; "
            f"`ip link set {name} mtu {MOST_MTU}`"
        )
    if _ask(name, GET_GRO) or _ask(name, GET_FLAGS) & FLAG_LRO:
        raise MachineError(
            f"interfaces: {name} merges the packets that it receives into larger ones; "
            f"`ethtool -K {name} gro off lro off`"
        )


def check_rights() -> None:
    """Raises MachineError if this process may not open interfaces."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    held = next((line for line in status.splitlines() if line.startswith("CapEff:")), "CapEff: 0")
    if not int(held.split()[1], 16) >> CAP_NET_RAW & 1:
        raise MachineError(
            f"interfaces: user {os.getuid()} may not open them; run as root, or with CAP_NET_RAW"
        )
