"""Child processes of a supervisor that a test controls, without a process."""

from __future__ import annotations

from picowsgi.process.members import ChildProcess


class EndingChild(ChildProcess):
    """A child that ends when the test sets `over`."""

    def __init__(self, pid: int, *, program: bool = False) -> None:
        super().__init__(pid, -1, program=program)
        self.over = False

    def has_ended(self, *, wait: bool = False) -> bool:  # noqa: ARG002
        return self.over

    @property
    def end(self) -> str:
        return "has died"


class SignalledChild(ChildProcess):
    """A worker that serves and records the signals it gets."""

    def __init__(self, pid: int, *, program: bool = False) -> None:
        super().__init__(pid, -1, program=program)
        self.ready = True
        self.sent: list[int] = []

    def signal(self, number: int) -> None:
        self.sent.append(number)
