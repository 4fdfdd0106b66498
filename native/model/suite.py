"""What run.py checks: the correct models with their bounds, the broken variants, the rare paths."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One search. With `must_fail` it has to find an error, else it must find none."""

    name: str
    model: str
    what: str
    defines: tuple[str, ...] = ()
    must_fail: bool = False
    workers: int = 0
    variables: int = 0
    bound: str = ""
    properties: tuple[str, ...] = ()


def plant(number: str, model: str, what: str, *defines: str) -> Check:
    """A broken variant: the macro of its number, and what else the model needs to show it."""
    return Check(number, model, what, (number, *defines), must_fail=True)


def order(name: str, what: str, bound: str, *defines: str) -> Check:
    """The large model with a set of programs and a number of faults."""
    size = dict(word.split("=") for word in defines if "=" in word)
    return Check(
        name,
        "order",
        what,
        defines,
        workers=int(size.get("W", 2)),
        variables=int(size.get("V", 2)),
        bound=bound,
        properties=ORDER_PROPERTIES,
    )


def reach(number: int, what: str, *defines: str) -> Check:
    """A rare path of the large model: an assertion that must fail there."""
    return Check(f"R{number:02}", "order", what, (f"REACH={number}", *defines), must_fail=True)


ORDER_PROPERTIES = (
    "I1: an output leaves when its past is stored; no cut excludes the past of a released output",
    "I2: every input's outputs leave once and in order, also what the base covers",
    "I3: a replay makes the same accesses and the same outputs",
    "I4: nothing of an ended view is stored, released or committed",
    "no deadlock: every run comes to rest with all outputs released",
)

MARKS_PROPERTIES = (
    "I3: what a backup holds after a committed delta is the state at its cut",
    "I5: undo logs are empty when an epoch opens",
    "no deadlock",
)

MODELS = (
    Check(
        "join",
        "join",
        "stop handshake of a cut",
        workers=3,
        bound="bursts of 2 packets and cuts, for ever",
        properties=("I3: no worker is inside a packet while the state is copied", "no deadlock"),
    ),
    Check(
        "marks",
        "marks",
        "marks of lines, epoch after epoch",
        workers=2,
        bound="2 packets each, 3 epochs, a shared and a private line, an undo log of 1 entry",
        properties=MARKS_PROPERTIES,
    ),
    Check(
        "marks-lost",
        "marks",
        "the same without room in the undo logs: every claim loses the snapshot",
        ("UNDO=0",),
        workers=2,
        bound="2 packets each, 3 epochs, a shared and a private line",
        properties=MARKS_PROPERTIES,
    ),
    Check(
        "seq",
        "seq",
        "sequence word with optimistic readers",
        workers=4,
        variables=1,
        bound="2 writers with 2 writes each, 2 readers",
        properties=(
            "I3: a read accepts one whole version",
            "I1: its writer's count is published",
            "no deadlock",
        ),
    ),
    order(
        "order-1",
        "one packet each, release max",
        "55 programs; 2 crashes, 1 snapshot, 1 restart of the OL",
        "SET=1",
        "CRASHES=2",
        "SNAPS=1",
        "RESTARTS=1",
    ),
    order(
        "order-1-exact",
        "one packet each, release exact",
        "55 programs; 2 crashes, 1 snapshot, 1 restart of the OL",
        "SET=1",
        "CRASHES=2",
        "SNAPS=1",
        "RESTARTS=1",
        "EXACT",
    ),
    order(
        "order-1-gate",
        "cut with a gate at the first shared access",
        "55 programs; 1 crash, 2 snapshots",
        "SET=1",
        "CRASHES=1",
        "SNAPS=2",
        "GATE",
    ),
    order(
        "order-2",
        "two packets each, release max",
        "15 programs; 2 crashes, 1 snapshot",
        "SET=2",
        "P=2",
        "N=2",
        "CRASHES=2",
        "SNAPS=1",
    ),
    order(
        "order-2-exact",
        "two packets each, release exact",
        "15 programs; 1 crash, 2 snapshots",
        "SET=2",
        "P=2",
        "N=2",
        "CRASHES=1",
        "SNAPS=2",
        "EXACT",
    ),
    order(
        "order-3",
        "three workers, one packet each, release max",
        "35 programs; 1 crash",
        "SET=3",
        "W=3",
        "CRASHES=1",
    ),
    order(
        "order-3-exact",
        "three workers, three variables, release exact",
        "20 programs; 1 crash",
        "SET=4",
        "W=3",
        "V=3",
        "CRASHES=1",
        "EXACT",
    ),
)

TWO_PACKETS = ("SET=2", "P=2", "N=2", "CRASHES=2", "SNAPS=1")
THREE_WORKERS = ("SET=3", "W=3")

PLANTS = (
    plant("M01", "join", "the flag is looked at before BUSY is stored"),
    plant("M02", "join", "the states are read before the flag is stored"),
    plant("M03", "join", "a parked worker goes on without a second look at the flag"),
    plant("M04", "marks", "entry appended before the claim and left there by the loser"),
    plant("M05", "marks", "claimed before the line is saved, without BUSY"),
    plant("M06", "marks", "the snapshot does not wait for the entry"),
    plant("M07", "marks", "other writers do not wait while BUSY"),
    plant("M08", "marks", "the stamp is reset before the line is read"),
    plant("M09", "seq", "version bumped once, then the work"),
    plant("M10", "seq", "the work, then version bumped once"),
    plant("M11", "seq", "count published after the release"),
    plant("M12", "order", "release without contiguity"),
    plant("M13", "order", "count published after the release (max)"),
    plant("M14", "order", "D read before the last access (max)"),
    plant(
        "M15", "order", "vector copied when the variable is taken (exact)", "EXACT", *THREE_WORKERS
    ),
    plant("M16", "order", "vector of the packet only (exact)", "EXACT", *TWO_PACKETS),
    plant("M17", "order", "past its log a worker does not wait for logged accesses"),
    plant("M18", "order", "a logged write does not wait for the readers of its version"),
    plant("M19", "order", "reads are not logged"),
    plant("M20", "order", "all that is stored is replayed, consistent or not"),
    plant("M21", "order", "cut without the versions of the base", *TWO_PACKETS),
    plant("M22", "order", "a read presupposes W(x,v) too", *TWO_PACKETS),
    plant("M23", "order", "held outputs are kept at the fence", *TWO_PACKETS),
    plant("M24", "order", "logs are not truncated to the cut", *TWO_PACKETS),
    plant("M25", "order", "frames of the old view are accepted", *TWO_PACKETS),
    plant("M26", "order", "a snapshot is committed without asking the OL", *TWO_PACKETS),
    plant("M27", "order", "a snapshot is committed when its PALs have arrived", *TWO_PACKETS),
    plant("M28", "order", "no barrier at the cut", *TWO_PACKETS),
    plant("M29", "order", "a cut while workers replay", *TWO_PACKETS),
    plant("M30", "order", "the cut splits a section", *THREE_WORKERS),
    plant("M31", "order", "a frame ends inside a section"),
    plant("M32", "order", "a variable is unlocked before its section ends", "SET=6", "W=3"),
    plant("M33", "order", "only writes wait at the gate", "GATE", "SNAPS=1"),
    plant("M34", "order", "outputs acknowledged when they arrive; the OL restarts", "RESTARTS=1"),
    plant("M35", "order", "released counts forgotten when the OL restarts", "RESTARTS=1"),
    plant("M36", "order", "logs forgotten when the OL restarts, nothing held", "RESTARTS=1"),
    plant("M37", "order", "a snapshot of an ended view is committed", *TWO_PACKETS),
    plant("M38", "order", "a section that does not keep the order of ids", "SET=5"),
    plant("M39", "marks", "a full undo log goes unnoticed", "UNDO=0"),
    plant("M40", "marks", "no gate before shared memory"),
    plant("M41", "marks", "lines of a delta that nobody will have are forgotten"),
    plant("M42", "marks", "an epoch opens while lines of the closing one are left", "UNDO=0"),
    plant("M43", "marks", "given up without waiting for a line that becomes BUSY", "UNDO=0"),
    plant("M44", "marks", "a stamp is checked before the line is the worker's"),
)

REACHES = (
    reach(1, "the cut drops PALs that are stored"),
    reach(2, "a crash with outputs held"),
    reach(3, "a crash while workers replay", "CRASHES=2"),
    reach(4, "a crash on a base beyond the start with a log", *TWO_PACKETS),
    reach(5, "a worker runs freely while another replays"),
    reach(6, "a logged write waits for logged readers"),
    reach(7, "an output comes again and is compared"),
    reach(8, "a snapshot is committed in a later view", *TWO_PACKETS),
    reach(9, "a crash while a snapshot is prepared", *TWO_PACKETS),
    reach(10, "the cut drops the head of a section with its tail"),
    reach(11, "a reader waits at the gate", "GATE", "SNAPS=1"),
    reach(12, "the OL restarts with outputs held", "RESTARTS=1"),
    Check("R13", "marks", "a snapshot is lost", ("REACH=13", "UNDO=0"), must_fail=True),
    Check("R14", "marks", "a delta of both lines", ("REACH=14",), must_fail=True),
)
