"""The roles of the stand-in for ftmb-node (fake_node.py): what they say and when they end."""

import fcntl
import os
import signal
import time
from pathlib import Path

import fake_base as base
from fake_base import die, emit, get, held, put
from fake_traffic import Traffic


class Replica:
    """Files: slotN is locked for life, memberN says who it is, view is what the OL decided."""

    def __init__(self):
        self.slot = base.SPEC["slot"]
        self.lock = open(base.DIR / f"slot{self.slot}", "w")  # noqa: SIM115
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.active = self.slot == 0 and get("view") is None
        put(f"member{self.slot}", pid=os.getpid(), base=False)
        self.based = False
        self.cut = False

    def step(self):
        order = get("view")
        if order is None or self.cut:
            return
        fenced = os.getpid() in order["gone"]
        if fenced or (self.active and order["slot"] != self.slot):
            emit("fenced_out", view=order["view"], by=order["slot"])
            os._exit(6)
        if not self.active and order["slot"] == self.slot and not order["begun"]:
            self.active = True
            emit("replay_start", view=order["view"])
            if base.MISBEHAVE == "poisoned":
                os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(0.03)
            emit("replay_done", view=order["view"], packets=70, pals=140)
            put("replayed", view=order["view"])
        elif not self.active and not self.based:
            emit("receiving", epoch=3, full=True)
            time.sleep(0.02)
            self.based = True
            put(f"member{self.slot}", pid=os.getpid(), base=True)

    def command(self, word):
        verb, _, link = word.partition(" ")
        if verb == "snapshot":
            emit("snapshot", epoch=9, pause_ns=8000, copy_ns=700, bytes=256, lines=2, full=False)
            if base.MISBEHAVE != "never-prepared":
                emit("digest_match", view=1, epoch=9)
                emit("commit", view=1, epoch=9)
        if verb in ("cut", "restore"):
            self.cut = verb == "cut" and link.startswith("ctl-")
            put(f"cut{self.slot}", since=time.monotonic() if self.cut else None)
            emit("link_cut" if verb == "cut" else "link_restored", link=link)

    def stats(self):
        emit(
            "stats",
            role="replica",
            slot=self.slot,
            condition="active" if self.active else "standby",
            inputs=base.PACKETS,
            ticks=9,
            outputs=base.PACKETS,
            dropped_by_nf=0,
            pals=2 * base.PACKETS,
            resent=0,
            waits=0,
            nf={"packets": base.PACKETS},
            nf_checks=[{"name": "sums", "ok": True, "detail": "equal"}],
            state_bytes=1 << 20,
            snapshot={},
            replay={"packets": 0, "pals": 0},
        )


class InputLogger:
    def __init__(self):
        found = get("il.state")
        put("il.state", pid=os.getpid())
        if found:
            emit("recovered", what="il", next=[1, 1])

    def command(self, word):
        verb, _, link = word.partition(" ")
        if verb in ("cut", "restore") and link.startswith("il-"):
            emit("link_cut" if verb == "cut" else "link_restored", link=link)

    def step(self):
        pass

    def stats(self):
        emit(
            "stats",
            role="il",
            received=base.PACKETS,
            accepted=base.PACKETS,
            refused=0,
            ticks=9,
            malformed=0,
            log_peak_bytes=100,
            log_capacity_bytes=200,
            log_bytes=100,
            resent=0,
            snapshot_requests=0,
        )


class OutputLogger:
    """Takes the release of a lock for a death, a stopped or cut-off process for a silent one."""

    def __init__(self):
        self.silent = {}
        self.il = None
        self.protected = False
        self.state = get("ol.state")
        self.kept = self.state is not None
        if self.kept:
            emit("recovered", what="ol", view=self.state["view"], released=base.PACKETS)
            emit("protected_again", what="ol")
        else:
            self.state = {"view": 1, "slot": 0, "begun": True, "gone": [], "base": [], "crashes": 0}
            self.save()

    def save(self):
        put("ol.state", **self.state)
        put("view", **self.state)

    def command(self, word):
        verb, _, link = word.partition(" ")
        if verb in ("cut", "restore") and link.startswith("ol-"):
            emit("link_cut" if verb == "cut" else "link_restored", link=link)

    def step(self):
        if base.SPEC["mode"] != "ftmb":
            return
        self.watch_il()
        if not self.state["begun"]:
            self.go_on()
            return
        for slot in range(base.SPEC["replicas"]):
            member = get(f"member{slot}")
            if member is None:
                continue
            kind = "death" if not held(f"slot{slot}") else self.silence(slot, member["pid"])
            if slot == self.state["slot"]:
                if kind:
                    self.fail_over(kind, member["pid"])
                    return
            elif kind:
                self.lose(slot, kind, member)
            elif member["base"] and slot not in self.state["base"]:
                self.state["base"].append(slot)
                self.save()
        enough = len(self.state["base"]) == base.SPEC["replicas"] - 1
        if enough and not self.protected and base.MISBEHAVE != "never-protected":
            self.protected = True
            if not self.kept:
                fields = {"backups": len(self.state["base"])}
                emit("protected", view=self.state["view"], epoch=1, **fields)
            self.kept = False

    def watch_il(self):
        now = get("il.state")
        if now and self.il and now != self.il:
            emit("restarted", what="il")
            emit("protected_again", what="il")
        self.il = now

    def silence(self, slot, pid):
        stopped = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        cut = (get(f"cut{slot}") or {}).get("since")
        if not stopped and cut is None:
            self.silent.pop(slot, None)
            return None
        since = self.silent.setdefault(slot, time.monotonic())
        limit = base.SPEC["ft"]["detect_ms"] / 1e3 * (1 if slot == self.state["slot"] else 5)
        return "silence" if time.monotonic() - since > limit else None

    def unprotect(self):
        if self.protected:
            emit("unprotected", what="backup")
        self.protected = self.kept = False

    def lose(self, slot, kind, member):
        emit("backup_lost", slot=slot, kind=kind)
        (base.DIR / f"member{slot}").unlink()
        self.state["base"] = [s for s in self.state["base"] if s != slot]
        if kind == "silence":
            self.state["gone"].append(member["pid"])
        self.save()
        self.unprotect()

    def fail_over(self, kind, pid):
        start = time.monotonic_ns()
        old = self.state["slot"]
        emit("suspect", slot=old, kind=kind)
        (base.DIR / f"member{old}").unlink()
        (base.DIR / f"cut{old}").unlink(missing_ok=True)
        self.state |= {"view": self.state["view"] + 1, "begun": False, "since": start}
        if kind == "silence":
            self.state["gone"].append(pid)
        emit("fenced", view=self.state["view"])
        self.choose()

    def choose(self):
        """The first backup that holds the base; a fresh process in its slot if it is dead."""
        base = sorted(self.state["base"])  # whichever had it first: the lowest slot takes over
        if not base:
            emit("state_lost", why="nobody holds a base")
            die(4, "state_lost: nobody holds a base")
        alive = [slot for slot in base if held(f"slot{slot}")]
        if not alive:
            emit("heir_wanted", base_view=1, base_epoch=1, slots=base)
        emit("cut", view=self.state["view"], pals=[10, 20], dropped_pals=1)
        self.state["slot"] = (alive or base)[0]
        self.unprotect()
        self.save()

    def go_on(self):
        slot, view = self.state["slot"], self.state["view"]
        if (get("replayed") or {}).get("view") == view:
            self.begin(slot, view)
            return
        member = get(f"member{slot}")
        if member and not held(f"slot{slot}"):
            self.state["crashes"] += 1
            if self.state["crashes"] == 1 and "poison" in base.MISBEHAVE:
                emit("poison", worker=1, input=17)
                die(4, "poison: worker 1, input 17")
            (base.DIR / f"member{slot}").unlink()
            self.state["view"] += 1
            emit("suspect", slot=slot, kind="death")
            emit("fenced", view=self.state["view"])
            self.choose()

    def begin(self, slot, view):
        emit("view", view=view, slot=slot)
        if base.MISBEHAVE != "no-resume":
            emit("resumed", view=view)
        self.state["begun"] = True
        self.state["base"] = [s for s in self.state["base"] if s != slot]
        gaps = (get("gaps") or {"list": []})["list"]
        start = self.state["since"]
        put("gaps", list=[*gaps, [start, time.monotonic_ns() - start]])
        self.save()

    def stats(self):
        emit(
            "stats",
            role="ol",
            frames=10,
            pals=2 * base.PACKETS,
            pal_bytes=16 * base.PACKETS,
            outputs=base.PACKETS,
            released=base.PACKETS,
            duplicates_dropped=5,
            hash_mismatches=0,
            dropped_old_view=0,
            dropped_bad=0,
            held_peak=1,
            log_peak_bytes=10,
            log_capacity_bytes=20,
            commits=1,
            snapshot_requests=0,
            resend_requests=0,
        )


ROLES = {"traffic": Traffic, "il": InputLogger, "ol": OutputLogger}


class Loggers:
    """The roles that the plan gives to this process."""

    def __init__(self):
        parent = os.getppid()
        for slot in range(base.SPEC["replicas"] if base.SPEC["mode"] != "floor" else 0):
            while get("view") is None and not (base.DIR / f"member{slot}").exists():
                time.sleep(0.005)
                if os.getppid() != parent:
                    os._exit(5)
        named = [role for lcore in base.SPEC["lcores"] for role in lcore["roles"]]
        self.roles = [ROLES[role]() for role in ROLES if role in named]

    def command(self, word):
        for role in self.roles:
            role.command(word)

    def step(self):
        for role in self.roles:
            role.step()

    def stats(self):
        for role in self.roles:
            role.stats()
