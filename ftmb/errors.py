"""The errors a user sees: one line, naming the cause and the remedy, and an exit code."""


class FtmbError(Exception):
    """Ends the command with one line on stderr. `exit_code` is part of the interface."""

    exit_code = 1


class SpecError(FtmbError):
    """The user wrote something wrong: an unknown key, a value out of range."""

    exit_code = 2


class MachineError(FtmbError):
    """The machine lacks something, or something of an earlier run is in the way."""

    exit_code = 3


class EngineError(MachineError):
    """The machine lacks what a snapshot engine needs. A workflow leaves such a trial out."""


class TrialError(FtmbError):
    """The trial was started and could not be carried far enough to write a record."""

    exit_code = 4


class Stopped(BaseException):
    """SIGINT or SIGTERM arrived. Not an Exception: no handler on the way up may swallow it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number
