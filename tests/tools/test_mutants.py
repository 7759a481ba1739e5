"""tools/mutants finds each kind of mutation, and skips those without an effect."""

from __future__ import annotations

import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from tools.mutants import builder, c_source, likely, python_source, sample
from tools.mutants.known import equivalents
from tools.mutants.mutation import plain

PROJECT = Path(__file__).resolve().parents[2]


def c_changes(statements: str) -> set[str]:
    source = f"static int f(int a, pw_conn *b)\n{{\n{statements}\n}}\n"
    found = c_source.mutations("csrc/one.c", source)
    assert all(one.function == "f" for one in found)
    return {f"{one.kind}: {one.new_line}" for one in found}


def python_changes(source: str) -> set[str]:
    pytest.importorskip("cosmic_ray")
    made = [one.make() for one in python_source.candidates("src/one.py", dedent(source))]
    return {f"{one.kind}: {one.new_line}" for one in made if one is not None}


@pytest.mark.parametrize(
    ("statement", "change"),
    [
        ("if (a < 5) g();", "relation: if (a <= 5) g();"),
        ("if (a >= 5) g();", "relation: if (a > 5) g();"),
        ("if (a == 5) g();", "equality: if (a != 5) g();"),
        ("if (a && h()) g();", "logic: if (a || h()) g();"),
        ("if (a && h()) g();", "condition: if (!(a && h())) g();"),
        ("while (a > 3) a--;", "condition: while (!(a > 3)) a--;"),
        ("if (!a) g();", "negation: if (a) g();"),
        ("a = 0;", "constant: a = 1;"),
        ("a = 1u;", "constant: a = 0u;"),
        ("a = 0x10;", "constant: a = 17;"),
        ("a = a + 2;", "arithmetic: a = a - 2;"),
        ("a += h();", "arithmetic: a -= h();"),
        ("return -1;", "arithmetic: return 1;"),
        ("b->what |= h();", "bits: b->what = h();"),
        ("b->what = a & 4;", "bits: b->what = a | 4;"),
        ("b->close = true;", "boolean: b->close = false;"),
        ("pw_unlock(b);", "dropped call: ;"),
        ("if (a) pw_free(b, (int)a);", "dropped call: if (a) ;"),
        ("b->close = h();", "dropped assignment: ;"),
        ("a++;", "dropped assignment: ;"),
        ("for (;;) break;", "break: for (;;) ;"),
        ("case 4: g(); return a;", "return: case 4: g(); ;"),
        ("case B: b->x = a;", "dropped assignment: case B: ;"),
    ],
)
def test_a_c_statement_is_changed(statement: str, change: str) -> None:
    assert change in c_changes(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "/* if (a == 0) return 1; */",
        "// a = 0;",
        "log(\"a == 0 && true\", '1');",
        "assert(a == 0 && b != NULL);",
        "#if PW_LEVEL > 1 && PW_OTHER\n#endif",
        "pw_conn *next;\n    const char *text;\n    size_t size;",
        "int c = (int)*b, d = *b;",
    ],
)
def test_text_that_is_not_c_code_is_not_changed(statement: str) -> None:
    allowed = {"dropped call: ;"} if "log" in statement else set()
    assert c_changes(statement) <= allowed


def test_a_mutation_replaces_only_its_own_piece() -> None:
    source = (
        "int f(void)\n{\n    if (g(1,\n          2) == 3)\n        return 4;\n    return 5;\n}\n"
    )
    for one in c_source.mutations("csrc/one.c", source):
        mutated = one.apply(source)
        assert mutated[: one.start] == source[: one.start]
        assert mutated.endswith(source[one.end :])
        assert mutated != source


def test_a_named_constant_is_mutated_under_its_own_name() -> None:
    (one,) = c_source.mutations(
        "csrc/one.c", "#define PW_MOST 50 /* 3 */\n#define PW_F(x) (x + 1)\n"
    )
    assert (one.function, one.line, one.new_line) == ("PW_MOST", 1, "#define PW_MOST 51 /* 3 */")


def test_the_functions_of_the_core_are_found() -> None:
    source = (PROJECT / "csrc" / "timer.c").read_text()
    names = {name: source[start:end] for name, start, end in c_source.functions(source)}
    assert {"pw_timer_stop", "pw_timers_due"} <= set(names)
    assert names["pw_timer_stop"].startswith("void pw_timer_stop(")
    assert names["pw_timer_stop"].count("\n}") == 1


def test_a_key_holds_until_its_function_changes() -> None:
    def keys(before: str, statement: str) -> set[str]:
        source = f"{before}\nint f(int a)\n{{\n    {statement}\n    return a;\n}}\n"
        return {one.key for one in c_source.mutations("csrc/one.c", source) if one.function == "f"}

    assert keys("", "a = 2;") == keys("/* more */\nint b;\n", "a = 2;")
    assert keys("", "a = 2;").isdisjoint(keys("", "a = 3;"))


@pytest.mark.parametrize(
    ("source", "change"),
    [
        ("def f(a):\n    return a == 2", "ComparisonOperator Eq NotEq: return a != 2"),
        ("def f(a):\n    return a < 2", "ComparisonOperator Lt LtE: return a <= 2"),
        ("def f(a):\n    return a + 2", "BinaryOperator Add Sub: return a - 2"),
        ("def f(a, b):\n    return a and b", "AndWithOr: return a or b"),
        ("def f(a):\n    return not a", "UnaryOperator Delete Not: return a"),
        ("def f(a):\n    if a:\n        return 3", "AddNot: if not a:"),
        ("A = True", "TrueWithFalse: A = False"),
        ("def f(a):\n    return a[2]", "NumberReplacer: return a[3]"),
        ("def f(a):\n    for b in a:\n        b()", "ZeroIterationForLoop: for b in []:"),
        ("def f(a):\n    while a:\n        break", "BreakWithContinue: continue"),
        ("def f(a):\n    a.close()", "dropped call: pass"),
        ("def f(a):\n    a.closed = a", "dropped assignment: pass"),
        ("def f(a):\n    if a:\n        raise a", "dropped raise: pass"),
        (
            "def f(a):\n    try:\n        a()\n    except OSError:\n        pass",
            "ExceptionReplacer: except ZeroDivisionError:",
        ),
    ],
)
def test_python_is_changed(source: str, change: str) -> None:
    assert change in python_changes(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring: a == 1 and not True."""',
        "# a = 1 + 2",
        "def f(a: int | None, *, b: 'int | str') -> int | None: ...",
        "a: dict[int, Literal[True]]",
        "if TYPE_CHECKING:\n    a = 1 + 2\n    b = not True",
        "App = A | B",
        "assert a == 1 and not b",
        "log.info('%d of %d', 1 + 2, not True)",
        "if __name__ == '__main__':\n    sys.exit(main(1))",
    ],
)
def test_changes_without_an_effect_in_python_are_left_out(source: str) -> None:
    assert python_changes(source) == set()


def test_methods_have_their_class_in_the_name() -> None:
    pytest.importorskip("cosmic_ray")
    source = "class A:\n    def f(self):\n        return 3\n"
    (one, _) = (one.make() for one in python_source.candidates("src/one.py", source))
    assert one is not None
    assert (one.function, one.line) == ("A.f", 3)


def test_every_file_has_likely_tests_and_every_test_in_the_tables_exists() -> None:
    for name in sample.files(PROJECT):
        assert likely.python_tests(PROJECT, name)[1]
    for stem, (programs, names) in likely.C_TESTS.items():
        assert (PROJECT / "csrc" / f"{stem}.c").exists()
        for program in programs.split():
            assert (PROJECT / "tests" / "c" / f"test_{program}.c").exists(), (stem, program)
        for test in names.split():
            assert (PROJECT / "tests" / test).exists(), (stem, test)
    stems = {path.stem for path in PROJECT.glob("src/picowsgi/**/*.py")}
    for stem, (units, tests) in likely.PYTHON_TESTS.items():
        assert stem in stems
        for test in [*(f"unit/test_{name}.py" for name in units.split()), *tests.split()]:
            assert (PROJECT / "tests" / test).exists(), (stem, test)


def test_the_tests_of_a_file_come_first() -> None:
    first, rest = likely.c_tests(PROJECT, "csrc/timer.c")
    assert first == ["test_timer"]
    everything = {path.stem for path in PROJECT.glob("tests/c/test_*.c")} | {builder.THREADS}
    assert {*first, *rest, "test_head"} == everything
    assert set(likely.c_tests(PROJECT, "")[1]) == everything


def test_the_unit_tests_of_a_module_come_before_the_other_tests() -> None:
    file = "src/picowsgi/wsgi/response_head.py"
    units = [f"tests/unit/test_response_head{end}.py" for end in ("", "_reuse")]
    assert likely.unit_tests(PROJECT, file) == units
    first, rest = likely.python_tests(PROJECT, file)
    assert first[:3] == [*units, "tests/e2e/test_pep3333.py"]
    assert not {*first} & {*rest}
    first, _ = likely.python_tests(PROJECT, "src/picowsgi/errors.py")
    assert "tests/unit/test_importer.py" in first, "expected a unit test that imports the module"


def test_an_equivalent_has_a_reason() -> None:
    entry = "# A comment\ncsrc/a.c: f\n- a  = 1;\n+ a = 2;\nNo code reads it:\nit is set again.\n"
    reasons = {("csrc/a.c", "f", "a = 1;", "a = 2;"): "No code reads it: it is set again."}
    assert equivalents(entry) == reasons
    with pytest.raises(ValueError, match="a reason"):
        equivalents("csrc/a.c: f\n- a = 1;\n+ a = 2;\n")


def test_the_committed_equivalents_are_mutations_of_the_sources() -> None:
    pytest.importorskip("cosmic_ray")
    listed = equivalents((PROJECT / "tools" / "mutants" / "equivalent.txt").read_text())
    for file in {name for name, *_ in listed}:
        language = c_source if file.endswith(".c") else python_source
        source = (PROJECT / file).read_text()
        begins = [plain(line) for line in source.splitlines()]
        wanted = {key[1:] for key in listed if key[0] == file}
        lines = {
            (one.function, one.old_line, one.new_line)
            for candidate in language.candidates(file, source)
            if any(begins[candidate.line - 1] in old for _, old, _ in wanted)
            and (one := candidate.make()) is not None
        }
        assert wanted <= lines, f"{file}: {wanted - lines}"


# ---------------------------------------------------------------- the sample


def test_a_random_sample_is_the_same_for_the_same_seed() -> None:
    chosen = sample.candidates(PROJECT, ["csrc/timer.c"])
    assert sample.shuffled(chosen, 1) == sample.shuffled(chosen, 1) != sample.shuffled(chosen, 2)
    assert len(sample.shuffled(chosen, 3)) == len(chosen)


def test_the_newest_lines_come_first(tmp_path: Path) -> None:
    def commit(date: int, *statements: str) -> None:
        lines = "\n".join(f"    {one}" for one in statements)
        file.write_text(f"void f(int a)\n{{\n{lines}\n}}\n")
        environ = {"GIT_COMMITTER_DATE": f"{date} +0000", "GIT_AUTHOR_DATE": f"{date} +0000"}
        for words in (
            ["add", "."],
            ["-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "a"],
        ):
            subprocess.run(["git", *words], cwd=tmp_path, check=True, env=environ)

    file = tmp_path / "csrc" / "one.c"
    file.parent.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    commit(1700000000, "first();", "third(7, a == 3);")
    commit(1800000000, "first();", "second(a == 1);", "third(7, a == 3);")
    chosen = sample.newest(tmp_path, sample.candidates(tmp_path, sample.files(tmp_path)))
    lines = [candidate.line for _, candidate in chosen]
    assert lines[0] == 4  # second(), whose commit is the last
    assert sorted(lines) == [3, 4, 5]  # one mutant for each line
    again = sample.newest(tmp_path, sample.candidates(tmp_path, sample.files(tmp_path)))
    assert [(one.line, one.kind) for _, one in chosen] == [(one.line, one.kind) for _, one in again]
