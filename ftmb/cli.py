"""The `ftmb` command. Exit codes: 0 done, 1 `check-nf` found something, 2 wrong spec or words,
3 machine, 4 the run failed, 5 a check failed (only with `trial --strict`). Those of `status`:
0 all is protected, 1 something is not, 3 nothing runs."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from pathlib import Path

import ftmb
from ftmb.errors import EngineError, FtmbError, MachineError, Stopped
from ftmb.lock import WAIT_S


def _add_site_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """A middlebox at work."""
    up = commands.add_parser("up", help="a middlebox between two interfaces, until it is stopped")
    up.add_argument("spec", type=Path, metavar="FILE.yaml", help="a spec with `interfaces`")
    up.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="assignments",
        help="change a key of the spec, e.g. interfaces.inside=eth1; may be repeated",
    )
    up.add_argument("--name", help="what `ftmb status` and `ftmb down` call it (default: FILE)")
    up.add_argument("--out", type=Path, metavar="DIR", help="keep what its processes say there")

    status = commands.add_parser("status", help="the middleboxes that are up")
    status.add_argument("--json", action="store_true", help="as JSON")
    switch = commands.add_parser(
        "switchover", help="replace a middlebox's master by its backup, no packet lost"
    )
    switch.add_argument("name", nargs="?", help="which, if there are several")
    switch.add_argument("--wait", action="store_true", help="until it is protected again")
    metrics = commands.add_parser("metrics", help="a middlebox in Prometheus' text format")
    metrics.add_argument("name", nargs="?", help="which, if there are several")
    down = commands.add_parser("down", help="end a middlebox in order")
    down.add_argument("name", nargs="?", help="which, if there are several")


def _add_endpoints_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Real programs at both ends of a middlebox that is killed."""
    ends = commands.add_parser("endpoints", help="real clients and servers across crashes")
    ends.add_argument("spec", type=Path, metavar="SPEC.yaml", help="docs/ENDPOINTS.md has its keys")
    ends.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                      dest="assignments", help="change a key of the spec")  # fmt: skip
    ends.add_argument("--out", type=Path, metavar="DIR", required=True)
    ends.add_argument("--lock-wait", type=float, default=WAIT_S, metavar="SECONDS")
    ends.add_argument("--leave-out", action="store_true",
                      help="where this machine cannot, write the reason as the record")  # fmt: skip
    ends.add_argument("--verbose", action="store_true", help="a line on stderr for each kill")


def _endpoints(options: argparse.Namespace) -> int:
    from ftmb import record
    from ftmb.endpoints import run, spec
    from ftmb.signals import stoppable

    with stoppable():
        wanted = spec.load(options.spec, options.assignments)
        try:
            made = run.run(wanted, options.out, options.lock_wait, not options.verbose)
        except MachineError as error:
            if not options.leave_out:
                raise
            record.leave_out(options.out, str(error))
            print(f"{options.out / 'record.json'}: left out: {error}")
            return 0
    print(f"{options.out / 'record.json'}: {run.summary(made)}")
    if made.valid is not True:
        print(f"ftmb: the record is not valid: {made.valid}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ftmb", description="Rollback recovery for middleboxes: trials, records, report."
    )
    parser.add_argument("--version", action="version", version=f"ftmb {ftmb.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    trial = commands.add_parser("trial", help="run one experiment, write one record")
    trial.add_argument("spec", nargs="?", type=Path, metavar="SPEC.yaml", help="the trial's spec")
    trial.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="assignments",
        help="change a key of the spec, e.g. traffic.rate_pps=100000; may be repeated",
    )
    trial.add_argument("--out", type=Path, metavar="DIR", help="where record.json is written")
    trial.add_argument(
        "--defaults", action="store_true", help="list all keys, their defaults and meaning"
    )
    trial.add_argument(
        "--lock-wait",
        type=float,
        default=WAIT_S,
        metavar="SECONDS",
        help="how long to wait for another trial on this machine (default %(default)g; 0: fail)",
    )
    trial.add_argument(
        "--strict", action="store_true", help="end with 5 if a check of the record fails"
    )
    trial.add_argument(
        "--leave-out",
        action="store_true",
        help="where this machine lacks the snapshot engine, write the reason as the record; end "
        "with 0",
    )
    trial.add_argument("--verbose", action="store_true", help="a line on stderr for each stage")

    _add_site_commands(commands)
    _add_endpoints_command(commands)

    doctor = commands.add_parser("doctor", help="what this machine can run, and what mends it")
    doctor.add_argument("--json", action="store_true", help="the findings as JSON")
    doctor.add_argument("--trex", metavar="NAME[:PORT]", help="ask this TRex server, too")

    check = commands.add_parser("check-nf", help="is a plain C program fit to be injected")
    check.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="its C files, and "
                       "the one with its `struct nf`")  # fmt: skip
    check.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                       dest="assignments", help="a parameter of the program")  # fmt: skip
    check.add_argument("--threads", type=int, choices=range(2, 9), default=4)
    check.add_argument("--seconds", type=float, default=1.0, help="default %(default)g")

    schema = commands.add_parser("schema", help="print the JSON Schema of a record or a spec")
    kinds = ("record", "trial", "endpoints", "peers", "peers-record")
    schema.add_argument("which", choices=kinds)

    new_nf = commands.add_parser("new-nf", help="begin a network function that works, with a test")
    new_nf.add_argument("name", metavar="NAME", help="small letters, digits and underscores")

    # Its own module parses its words; the entry here is for `ftmb --help`.
    commands.add_parser("report", help="analysis, figures and results/report.html", add_help=False)
    commands.add_parser("bench", help="what the functions cost in one process", add_help=False)
    commands.add_parser("peers", help="crashes beside conntrackd and keepalived", add_help=False)
    return parser


def _print_defaults() -> int:
    from ftmb import spec

    for key, default, text in spec.defaults():
        if isinstance(default, bool):
            shown = str(default).lower()
        else:
            shown = "[]" if default == [] else str(default)
        print(f"{key:<30} {shown:<12} {text}")
    print("nf.<parameter>                              parameters of the network function:")
    from ftmb.describe import describe

    try:
        functions = describe().nfs
    except FtmbError as error:
        print(f"  not known: {error}")
        return 0
    for nf in functions:
        for param in nf.params:
            print(f"  {nf.name + '.' + param.name:<28} {param.default!s:<12} {param.help}")
        for number in range(nf.stages):
            key = f"{nf.name}.stage{number + 1}"
            print(f"  {key:<28} {'':<12} a function with its parameters, as `nf` itself")
    return 0


def _trial(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    if options.defaults:
        return _print_defaults()
    if options.spec is None or options.out is None:
        parser.error("a trial needs a spec and --out: ftmb trial SPEC.yaml --out DIR")
    # Late: the other commands need none of it.
    from ftmb import record, spec, trial
    from ftmb.signals import stoppable

    with stoppable():
        checked = spec.load(options.spec, options.assignments)
        try:
            result = trial.run(checked, options.out, options.lock_wait, options.verbose)
        except EngineError as error:
            if not options.leave_out:
                raise
            record.leave_out(options.out, str(error))
            print(f"{options.out / 'record.json'}: left out: {error}")
            return 0
    print(f"{options.out / 'record.json'}: {trial.summary(result)}")
    if result.valid is not True:
        print(f"ftmb: the record is not valid: {result.valid}", file=sys.stderr)
    failed = [check for check in result.checks if check.verdict == "fail"]
    if options.strict and failed:
        for check in failed:
            print(f"ftmb: check {check.name} failed: {check.detail}", file=sys.stderr)
        return 5
    return 0


def _up(options: argparse.Namespace) -> int:
    from ftmb import site, spec
    from ftmb.signals import stoppable

    checked = spec.load(options.spec, options.assignments)
    with stoppable():
        print(site.up(options.name or options.spec.stem, checked, options.out))
    return 0


def _dispatch(words: list[str]) -> int:
    if words and words[0] == "report":
        report = importlib.import_module("ftmb.report")
        return int(report.main(words[1:]))
    if words and words[0] == "bench":
        bench = importlib.import_module("ftmb.bench")
        return int(bench.main(words[1:]))
    if words and words[0] == "peers":
        peers = importlib.import_module("ftmb.peers.run")
        return int(peers.main(words[1:]))
    parser = _parser()
    options = parser.parse_args(words)
    if options.command == "trial":
        return _trial(options, parser)
    if options.command == "up":
        return _up(options)
    if options.command == "endpoints":
        return _endpoints(options)
    if options.command in ("status", "down", "switchover", "metrics"):
        from ftmb import site

        if options.command == "status":
            return site.status(options.json)
        if options.command == "switchover":
            site.switch(options.name, options.wait)
        else:
            print((site.down if options.command == "down" else site.metrics)(options.name).rstrip())
        return 0
    if options.command == "doctor":
        from ftmb import doctor

        return doctor.main(options.json, options.trex)
    if options.command == "new-nf":
        from ftmb import new_nf

        return new_nf.main(options.name)
    if options.command == "check-nf":
        from ftmb import check_nf

        words = options.assignments
        return check_nf.main(options.sources, words, options.threads, options.seconds)
    if options.which.startswith("peers"):
        from ftmb.peers import record as peers

        print(peers.schema(options.which), end="")
        return 0
    from ftmb import record

    print(record.schema(options.which), end="")
    return 0


def main(words: list[str] | None = None) -> int:
    """Run the command. Every foreseen failure is one line on stderr that begins with `ftmb: `."""
    try:
        return _dispatch(sys.argv[1:] if words is None else words)
    except FtmbError as error:
        print(f"ftmb: {error}", file=sys.stderr)
        return error.exit_code
    except Stopped as stop:
        name = signal.Signals(stop.signal_number).name
        print(f"ftmb: stopped by {name}; nothing is left running", file=sys.stderr)
        return 128 + stop.signal_number
    except KeyboardInterrupt:
        print("ftmb: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our stdout (`head`) has gone. Python would complain at exit otherwise.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ModuleNotFoundError as error:
        line = f"ftmb: the Python package {error.name} is missing: run `make setup`"
        print(line, file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
