"""The documentation has every option, and no option that does not exist."""

from __future__ import annotations

import importlib.util
import pkgutil
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import picowsgi
from picowsgi import contrib, errors
from picowsgi.cli.top import make_parser
from picowsgi.config.peers import PEERS
from picowsgi.config.settings import OPTIONS
from picowsgi.threads.access_log import compile_format
from picowsgi.wsgi.gateway import EXTENSIONS

if TYPE_CHECKING:
    from types import ModuleType

    from picowsgi.config.option import Option

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))

# Options of the command that are not in the table, and those of `picowsgi top`.
GENERAL = {"--config", "--check", "--version", "--help", "--help-all"}
GENERAL |= {name for option in make_parser().params for name in option.opts if name[0] == "-"}
# Programs on a page that have options of their own.
OTHERS = re.compile(
    r"^ *(docker|flask|granian|gunicorn|make bench|pserve|python -m debugpy|uvicorn|uwsgi"
    r"|waitress-serve) |`flask run`|unknown option --|`pserve --"
)


def _hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _rendered(page: Path) -> str:
    return str(_hooks().on_page_markdown(page.read_text("utf-8"), page=None))


def _ours(line: str, page: Path) -> str:
    """Return the part of a line about picowsgi's options."""
    if OTHERS.search(line):
        return ""
    if page.name == "switching.md" and line.startswith("| "):
        return line.split("|", 2)[2]
    return line


def test_the_page_of_options_has_a_row_for_each_option_in_the_order_of_the_table() -> None:
    rows = re.findall(
        r"^\| <span id=\"(\w+)\"></span>(.*) \|$", _rendered(DOCS / "options.md"), re.MULTILINE
    )
    assert [name for name, _ in rows] == list(OPTIONS)
    for name, row in rows:
        option = OPTIONS[name]
        shown, default, variable, text = row.split(" | ", 3)
        assert shown.startswith(f"`{option.flag}")
        assert default == (
            f"`{option.show(option.default)}`" if option.show(option.default) else ""
        )
        assert variable == f"`PICOWSGI_{name.upper()}`"
        assert option.help in text.replace("\\|", "|")


def test_the_options_are_under_their_groups() -> None:
    group = ""
    for line in _rendered(DOCS / "options.md").splitlines():
        if line.startswith("## "):
            group = line.removeprefix("## ")
        elif match := re.match(r"\| <span id=\"(\w+)\"", line):
            assert OPTIONS[match[1]].group == group


def _has_two_flags(option: Option) -> bool:
    return option.switch or option.kind == "flag"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_that_a_page_names_exists(page: Path) -> None:
    known = GENERAL | {option.flag for option in OPTIONS.values()}
    known |= {f"--no-{option.flag[2:]}" for option in OPTIONS.values() if _has_two_flags(option)}
    variables = {option.variable for option in OPTIONS.values()}
    for line in _rendered(page).splitlines():
        ours = _ours(line, page)
        unknown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", ours)) - known
        unknown |= set(re.findall(r"(?<![\w])PICOWSGI_[A-Z_]+", ours)) - variables
        assert not unknown, f"{page.name} has an option that is not in the table: {line}"


def test_the_page_of_other_servers_has_the_rows_that_the_error_messages_use() -> None:
    page = _rendered(DOCS / "switching.md")
    assert "<!-- options of" not in page
    for peer, rows in PEERS.items():
        assert f"| {peer} | picowsgi | notes |" in page
        for row in rows:
            names = ", ".join(f"`{name}`" for name in row.names)
            assert f"\n| {names} | " in page
            for anchor in re.findall(r"\]\(([\w.]+)", row.note):
                assert (DOCS / anchor).is_file()


def test_every_page_is_in_the_navigation() -> None:
    named = re.findall(
        r"^  - .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE
    )
    assert sorted(named) == [page.name for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_links_to_exists(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (DOCS / target).is_file(), f"{page.name} links to {target}"


def test_the_page_of_options_in_detail_has_every_atom_of_the_access_log() -> None:
    with pytest.raises(ValueError, match="atoms") as refused:
        compile_format("%(X)s")
    known = re.findall(r"\b[A-Za-z]\b", str(refused.value).partition("atoms")[2])
    text = (DOCS / "option-notes.md").read_text("utf-8")
    assert set(known) >= set("hlutrmUqHRsBbTLMDdQcpfa")
    for atom in known:
        assert f"`%({atom})s`" in text, f"expected the atom {atom} on a page"


def test_the_page_of_the_python_interface_has_every_exception_and_every_key_of_the_environ() -> (
    None
):
    text = (DOCS / "python.md").read_text("utf-8")
    names = [name for name in vars(errors) if name.endswith("Error")]
    assert len(names) > 5
    for name in (*names, *EXTENSIONS):
        assert f"`{name}`" in text, f"expected {name} on a page"


def _reference() -> dict[str, set[str]]:
    """Return the members of each object in the reference."""
    text = (DOCS / "api.md").read_text("utf-8")
    named = re.findall(r"^::: (\S+)\n((?:    .*\n)*)", text, re.MULTILINE)
    return {
        name: set(re.findall(r"\w+", "".join(re.findall(r"members: \[(.*)\]", options))))
        for name, options in named
    }


def test_the_reference_has_the_public_classes_and_functions() -> None:
    reference = _reference()
    modules = {"cgi", "simple_server"}
    for name in set(picowsgi.__all__) - modules - {"__version__"}:
        assert f"picowsgi.{name}" in reference
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert reference["picowsgi.errors"] == classes
    assert reference["picowsgi.simple_server"] == set(picowsgi.simple_server.__all__) - {"demo_app"}
    assert reference["picowsgi.cgi"] == {"run"}
    assert "wsgi_server" in reference["picowsgi.pytest_plugin"]


def test_the_reference_has_every_module_of_contrib() -> None:
    text = (DOCS / "api.md").read_text("utf-8")
    modules = [module.name for module in pkgutil.iter_modules(contrib.__path__)]
    assert {"django", "flask", "gunicorn"} <= set(modules)
    for name in modules:
        assert f"picowsgi.contrib.{name}" in text
