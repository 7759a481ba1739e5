"""The upgrade on SIGUSR2: the command starts again beside this server, on the same sockets.

Never ends one of the two servers: the user decides which one continues.
"""

from __future__ import annotations

import os

from picowsgi.log import get_logger
from picowsgi.process.members import ChildProcess
from picowsgi.process.service import Service
from picowsgi.process.spawner import Spawner


class Upgrade:
    """The successor of a service, if there is one."""

    def __init__(self, service: Service, spawner: Spawner) -> None:
        self._service = service
        self._spawner = spawner
        self._announced = False
        self.process: ChildProcess | None = None

    def lives(self) -> bool:
        """Return whether there is a successor."""
        return self.process is not None and not self.process.has_ended()

    def is_starting(self) -> bool:
        """Return whether there is a successor that does not serve yet."""
        return self.process is not None and not self.process.ready and self.lives()

    def serves(self) -> bool:
        """Return whether there is a successor that serves."""
        return self.process is not None and self.process.ready and self.lives()

    def processes(self) -> list[ChildProcess]:
        """Return the successor, as a list."""
        return [] if self.process is None else [self.process]

    def start(self) -> None:
        """Start a successor, unless there is one."""
        service, logger = self._service, get_logger()
        if service.command is None or service.status_pipe is not None:
            logger.warning("only the first process of a command can start a successor")
            return
        if self.process is not None:
            logger.warning("the successor %d runs already", self.process.pid)
            return
        if service.pid_file is not None:
            service.pid_file.make_room()
        try:
            self.process = self._spawner.start("successor")
        except OSError as error:
            logger.error("cannot start a successor: %s", error)
            self._undo()
            return
        self._announced = False
        logger.info("starting the successor %d", self.process.pid)

    def check(self) -> None:
        """Log a successor that has become ready or has ended."""
        one = self.process
        if one is None:
            return
        if one.has_ended():
            get_logger().error("the successor %d %s; nothing has changed", one.pid, one.end)
            self.process = None
            self._undo()
        elif one.ready and not self._announced:
            self._announced = True
            get_logger().info(
                "the successor %d serves too; send SIGTERM to %d to stop this server",
                one.pid,
                os.getpid(),
            )

    def succeed(self) -> bool:
        """Report the successor to the service manager, because this process ends.

        Returns False if there is no successor.
        """
        if self.process is None or not self.lives():
            return False
        self._service.notifier.succeeded_by(self.process.pid)
        return True

    def _undo(self) -> None:
        if self._service.pid_file is not None:
            self._service.pid_file.take_back()
