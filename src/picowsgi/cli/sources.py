"""The files that the options name, and that give options or variables themselves.

Never imports the application.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from picowsgi.app.spec import parse_ini
from picowsgi.config.load import Section, load_settings
from picowsgi.errors import AppImportError, ConfigError

if TYPE_CHECKING:
    from picowsgi.cli.arguments import Arguments
    from picowsgi.config.env_file import EnvFiles
    from picowsgi.config.settings import Settings


class Sources:
    """The files of `--env-file`, and a file for PasteDeploy as APP."""

    def __init__(self) -> None:
        self._env_files: EnvFiles | None = None

    def read_environment(self, settings: Settings) -> None:
        """Set the variables of `--env-file`. Raises ConfigError."""
        if settings.env_file:
            from picowsgi.config.env_file import EnvFiles  # only this option needs it

            self._env_files = EnvFiles(
                [Path(settings.chdir, file).absolute() for file in settings.env_file]
            )
            self._env_files.apply()

    def prepare_load(self, settings: Settings) -> None:
        """Prepare this process for the application: the environment, and the logs of an ini file.

        Call this before each load. Raises AppImportError.
        """
        if self._env_files is not None and settings.reload:
            try:
                self._env_files.apply()
            except ConfigError as error:
                raise AppImportError(str(error)) from None
        ini = parse_ini(settings.app)
        if ini is not None and not settings.log_config:
            from picowsgi.app.paste_deploy import configure_logging

            configure_logging(ini[0])


def find_settings(command: Arguments, sources: Sources) -> Settings:
    """Return the settings of a command, from all places.

    The options name the files of `--env-file`, whose variables may be options. All options together
    name APP, and a file for PasteDeploy has options too. Raises ConfigError or AppImportError.
    """
    settings = _load(command)
    if settings.env_file:
        sources.read_environment(settings)
        settings = _load(command)
    ini = parse_ini(settings.app)
    if ini is None:
        return settings
    from picowsgi.app.paste_deploy import read_server  # only these files need them
    from picowsgi.config.server_section import make_section

    file = ini[0]
    server, values = read_server(str(Path(settings.chdir, file)))
    is_ours = server.partition("#")[0] == "egg:picowsgi"
    return _load(command, make_section(values, file, only_address=not is_ours))


def _load(command: Arguments, section: Section | None = None) -> Settings:
    settings = load_settings(
        command.options, config_file=command.config_file, source="command line", section=section
    )
    if not command.has_argument:
        return settings
    return replace(settings, sources={**settings.sources, "app": "the argument APP"})
