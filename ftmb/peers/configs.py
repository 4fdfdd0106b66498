"""Configurations of the daemons that are compared with, as text: pure functions of a few words."""

from __future__ import annotations

from pathlib import Path

from ftmb.peers import places
from ftmb.peers.spec import PORTS

FIRST_PORT = 20_000
LAST_PORT = FIRST_PORT + PORTS - 1


def nat(addresses: int) -> str:
    """nftables: a NAT whose ports are random, so that nothing survives by chance.

    Ports that are kept where they are free would let many flows live without any state. The
    forward chain takes in what began inside and what belongs to it, as a home router does.
    """
    first, last = places.outside(0), places.outside(addresses - 1)
    pool = first if first == last else f"{first}-{last}"
    return f"""flush ruleset
table inet peers {{
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state invalid counter drop
    ct state established,related counter accept
    iifname "inside" oifname "outside" tcp flags & (fin|syn|rst|ack) == syn ct state new accept
    iifname "inside" oifname "outside" meta l4proto udp ct state new accept
  }}
  chain out {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "outside" meta l4proto {{ tcp, udp }} \\
      counter snat ip to {pool}:{FIRST_PORT}-{LAST_PORT} fully-random
  }}
}}
"""


def cut_table(ports: list[str]) -> str:
    """nftables: one chain on all cables of a box, which lets everything pass so far.

    One chain, since the hooks of several are not registered at the same instant: the link of the
    state would go first or last, and the cut itself lose mappings or save them.
    """
    devices = ", ".join(f'"{port}"' for port in ports)
    return (
        "add table netdev cut\nadd chain netdev cut cables { type filter hook ingress devices = "
        f"{{ {devices} }} priority -500; policy accept; }}\n"
    )


CUT_RULE = "add rule netdev cut cables counter drop\n"


def conntrackd(run: Path, own: str, other: str) -> str:
    """conntrackd in mode FTFW between two addresses of the state link; files of its own in `run`.

    The kernel filter leaves out what is not a mapping: the link itself, the boxes' own addresses.
    """
    ignored = [places.SYNC_NETWORK, places.INSIDE, places.OUTSIDE, "127.0.0.1"]
    ignore = "\n".join(f"      IPv4_address {address}" for address in ignored)
    return f"""Sync {{
  Mode FTFW {{
    ResendQueueSize 131072
    PurgeTimeout 5
    ACKWindowSize 300
    DisableExternalCache no
    StartupResync yes
  }}
  UDP {{
    IPv4_address {own}
    IPv4_Destination_Address {other}
    Port 3780
    Interface sync
    SndSocketBuffer 1249280
    RcvSocketBuffer 1249280
    Checksum on
  }}
  Options {{
    TCPWindowTracking no
  }}
}}
General {{
  Systemd no
  HashSize 65536
  HashLimit 1048576
  LogFile {run}/log
  LockFile {run}/lock
  UNIX {{
    Path {run}/control
  }}
  NetlinkBufferSize 8388608
  NetlinkBufferSizeMaxGrowth 33554432
  NetlinkOverrunResync yes
  NetlinkEventsReliable no
  EventIterationLimit 100
  Filter From Kernelspace {{
    Protocol Accept {{
      TCP
      UDP
    }}
    Address Ignore {{
{ignore}
    }}
  }}
}}
"""


def _vrrp(name: str, link: str, number: int, address: str, priority: int, advert_s: float) -> str:
    return f"""vrrp_instance {name} {{
  state BACKUP
  nopreempt
  interface {link}
  virtual_router_id {number}
  priority {priority}
  advert_int {advert_s:g}
  garp_master_delay 0
  garp_master_repeat 3
  virtual_ipaddress {{
    {address} dev {link}
  }}
}}
"""


def keepalived(priority: int, advert_s: float, script: Path) -> str:
    """keepalived: both sides' addresses move together; who becomes master runs the script."""
    return f"""global_defs {{
  vrrp_version 3
  script_user root
}}
vrrp_sync_group box {{
  group {{
    in
    out
  }}
  notify_master "{script}"
}}
{_vrrp("in", "inside", 51, places.INSIDE + "/16", priority, advert_s)}\
{_vrrp("out", "outside", 52, places.OUTSIDE + "/24", priority, advert_s)}"""


def script(conntrackd: str, config: Path, told: Path) -> str:
    """What keepalived runs once it is master: the order of conntrackd's own example script, with
    the instants of the commit written down."""
    return f"""#!/bin/sh
date +%s%N > {told}.begin
{conntrackd} -C {config} -c
date +%s%N > {told}.end
{conntrackd} -C {config} -f
{conntrackd} -C {config} -R
{conntrackd} -C {config} -B
echo done > {told}.done
"""
