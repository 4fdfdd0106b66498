"""What run.py checks: the correct models with their bounds, and the broken variants."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One search. With `plant` set it must find an error, else it must not."""

    name: str
    model: str
    what: str
    defines: tuple[str, ...] = ()
    plant: str = ""
    workers: int = 0
    variables: int = 0
    bound: str = ""
    properties: tuple[str, ...] = ()
    compile: tuple[str, ...] = ()


def plant(number: str, model: str, what: str, *defines: str) -> Check:
    """A broken variant: the macro of its number, and what else the model needs to show it."""
    return Check(number, model, what, (number, *defines), number)


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
        "cow",
        "cow",
        "claim of a line: BUSY, save, append, stamp, write",
        workers=2,
        bound="2 writers, one line of 2 words, epochs for ever",
        properties=("I3: what is streamed is the line at the flip", "no deadlock"),
    ),
    Check(
        "cow-winner",
        "cow",
        "claim of a line: save, claim, winner appends, streamer waits",
        ("WINNER_APPENDS",),
        workers=2,
        bound="2 writers, one line of 2 words, epochs for ever",
        properties=("I3: what is streamed is the line at the flip", "no deadlock"),
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
)

PLANTS = (
    plant("M01", "join", "the flag is looked at before BUSY is stored"),
    plant("M02", "join", "the states are read before the flag is stored"),
    plant("M03", "join", "a parked worker goes on without a second look at the flag"),
    plant("M04", "cow", "entry appended before the claim and left there by the loser"),
    plant("M05", "cow", "claimed before the line is saved, without BUSY"),
    plant("M06", "cow", "the streamer does not wait for the winner's entry"),
    plant("M07", "cow", "other writers do not wait while BUSY"),
    plant("M08", "cow", "the streamer reads the stamp before the line"),
    plant("M09", "seq", "version bumped once, then the work"),
    plant("M10", "seq", "the work, then version bumped once"),
    plant("M11", "seq", "count published after the release"),
)
