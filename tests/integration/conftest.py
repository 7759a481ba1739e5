"""Fixtures of the integration tests: sites of Flask and Django, and a browser."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.command import START_TIMEOUT, command, picowsgi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from selenium.webdriver import Chrome as WebDriver

    from support.command import Command

__all__ = ["command", "picowsgi"]

APPS = Path(__file__).resolve().parent / "apps"


@pytest.fixture(scope="session")
def load_app() -> Callable[[str], ModuleType]:
    """Import a file of apps/ as a new module: `load_app("flask_site.py").create_app()`."""

    def load(name: str) -> ModuleType:
        path = APPS / name
        spec = importlib.util.spec_from_file_location(f"picowsgi_tests_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def surveys_as_prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Django project with its database. Tests copy it."""
    project = tmp_path_factory.mktemp("surveys") / "project"
    shutil.copytree(APPS / "surveys", project, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "prepare.py"], cwd=project, check=True, timeout=START_TIMEOUT)
    return project


@pytest.fixture
def surveys(surveys_as_prepared: Path, tmp_path: Path) -> Path:
    """A copy of the Django project that the test can change."""
    project = tmp_path / "surveys"
    shutil.copytree(surveys_as_prepared, project)
    return project


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A folder with a copy of the Flask application, whose database is there too."""
    folder = tmp_path / "journal"
    shutil.copytree(APPS / "journal", folder, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [sys.executable, "-m", "flask", "--app", "journal", "create-tables"],
        cwd=folder,
        env={**os.environ, "JOURNAL_FOLDER": str(folder)},
        check=True,
        timeout=START_TIMEOUT,
    )
    return folder


@pytest.fixture
def flask(command: Callable[..., Command], journal: Path) -> Callable[..., Command]:
    """Start the Flask application: `flask("--debug", FLASK_RUN_PORT="0")`."""

    def start(*options: str, app: str = "journal", listens: bool = True, **environ: str) -> Command:
        return command(
            "-m",
            "flask",
            "--app",
            app,
            "picowsgi",
            *options,
            directory=journal,
            environ={
                "JOURNAL_FOLDER": str(journal),
                "FLASK_RUN_PORT": "0",
                "PYTHONDONTWRITEBYTECODE": "1",
                **environ,
            },
            stdout=True,
            listens=listens,
        )

    return start


@pytest.fixture
def runserver(command: Callable[..., Command], surveys: Path) -> Callable[..., Command]:
    """Start the Django project on a free port: `runserver("--nostatic", SURVEYS_DEBUG="off")`."""

    def start(*arguments: str, listens: bool = True, **environ: str) -> Command:
        if not any(argument[-1].isdigit() for argument in arguments):
            arguments = ("0", *arguments)
        return command(
            "manage.py",
            "runserver",
            *arguments,
            directory=surveys,
            environ={"PYTHONDONTWRITEBYTECODE": "1", "SURVEYS_WATCHED": "1", **environ},
            stdout=True,
            listens=listens,
        )

    return start


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    """A headless Chromium, which all tests of a session share."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("needs Chromium: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = programs[0]
    for flag in (
        "headless",
        "no-sandbox",  # which root cannot have
        "disable-gpu",
        "disable-quic",
        "disable-dev-shm-usage",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(f"--{flag}")
    driver = Chrome(options, ChromeService(programs[1]))
    driver.set_page_load_timeout(START_TIMEOUT)
    yield driver
    with warnings.catch_warnings():
        # Selenium may drop its connection to chromedriver without closing it.
        warnings.simplefilter("ignore", ResourceWarning)
        driver.quit()
