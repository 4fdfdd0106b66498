"""Addresses of a comparison: client - box A or B - server, and the link between the boxes."""

from __future__ import annotations

import ipaddress

CLIENT = "10.77.0.1"
FIRST_FLOW = "10.77.16.0"  # and those after it; no host has them, so no kernel answers for them
INSIDE, OUTSIDE = "10.77.0.254", "198.18.0.254"
SERVER = "198.18.0.2"
POOL = "198.18.4.0/24"
SYNC = ("192.168.255.1", "192.168.255.2")
SYNC_NETWORK = "192.168.255.0/30"
# What keepalived calls a box's own addresses: VRRP is spoken from there.
OWN = (("10.77.0.252", "198.18.0.252"), ("10.77.0.253", "198.18.0.253"))

CLIENT_MAC, SERVER_MAC = "02:00:00:00:01:02", "02:00:00:00:02:02"
INSIDE_MAC, OUTSIDE_MAC = "02:00:00:00:01:fe", "02:00:00:00:02:fe"


def outside(number: int) -> str:
    """The number-th outside address of the NAT."""
    return str(ipaddress.ip_network(POOL)[number + 1])
