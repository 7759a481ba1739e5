"""Signals as numbers, in a new process for each test: handlers belong to the whole process."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from support import PYPY

BEGIN = """
import atexit, faulthandler, os, select, signal, sys, threading, time
from picowsgi.system import signals
from picowsgi.system.signals import ALL, FEW, STOP, DefaultInChildren, Signals

def status(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True

def me(number):
    signal.raise_signal(number)

# A background process of a shell ignores some of them, and so do its children.
for number in ALL:
    default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    signal.signal(number, default)

def blocked():
    return signal.pthread_sigmask(signal.SIG_BLOCK, [])

def same(left, right):
    assert left == right, (left, right)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process with the names above."""
    return subprocess.run(
        [sys.executable, "-c", BEGIN + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def passes(code: str) -> str:
    """Expect the code to run to its end, and return its standard error."""
    ended = run(textwrap.dedent(code) + '\nprint("done")')
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr
    return ended.stderr


def test_signals_keep_their_order_and_early_ones_come_first() -> None:
    passes("""
        one = Signals(ALL)
        same(one.take(), [])
        one.expect()
        me(signal.SIGUSR1)
        me(signal.SIGHUP)
        one.install()
        me(signal.SIGTERM)
        me(signal.SIGINT)
        same(
            one.take(), [signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM, signal.SIGINT]
        )
        same(one.take(), [])
    """)


def test_the_pipe_is_readable_when_there_is_a_signal() -> None:
    passes("""
        one = Signals(FEW)
        one.expect()
        one.install()
        same(select.select([one], [], [], 0), ([], [], []))
        me(signal.SIGTERM)
        same(select.select([one], [], [], 5)[0], [one])
        one.take()
        one.wake()
        same(select.select([one], [], [], 5)[0], [one])
        same(one.take(), [])
        for _ in range(100_000):
            one.wake()
        assert not os.get_inheritable(one.fileno())
        one.restore()
        one.wake()
    """)


@pytest.mark.parametrize("begin", ["one.expect()", "one.expect()\n    one.install()"])
def test_a_full_pipe_loses_a_signal_silently(begin: str) -> None:
    error = passes(f"""
    one = Signals(FEW)
    {begin}
    for _ in range(100_000):
        one.wake()
    me(signal.SIGUSR1)
    """)
    assert error == ""


def test_signals_with_other_handlers_are_not_taken() -> None:
    passes("""
        signal.signal(signal.SIGUSR2, lambda *_: None)
        one = Signals(FEW)
        one.expect()
        one.install()
        me(signal.SIGUSR2)
        same(one.take(), [])
    """)


def test_a_stop_before_the_import_ends_the_process_as_usual() -> None:
    ended = run("""
        one = Signals(ALL)
        one.expect()
        me(signal.SIGTERM)
    """)
    assert ended.returncode == -15
    ended = run("""
        one = Signals(ALL)
        one.expect()
        me(signal.SIGINT)
    """)
    assert "KeyboardInterrupt" in ended.stderr


def test_handlers_are_restored() -> None:
    passes("""
        def mine(*_):
            pass

        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGUSR1, mine)
        before = {number: signal.getsignal(number) for number in ALL}
        one = Signals(ALL)
        descriptor = one.fileno()
        one.expect()
        one.install()
        assert all(signal.getsignal(number) != before[number] for number in ALL)
        one.restore()
        same({number: signal.getsignal(number) for number in ALL}, before)
        same(signal.set_wakeup_fd(-1), writer)
        assert not is_open(descriptor)
        assert not is_open(descriptor + 1) or descriptor + 1 in (reader, writer)
    """)


def test_a_handler_that_python_does_not_know_becomes_the_default() -> None:
    passes("""
        one = Signals(FEW)
        one.expect()
        one.install()
        one._previous[signal.SIGUSR1] = None
        one.restore()
        same(signal.getsignal(signal.SIGUSR1), signal.SIG_DFL)
    """)


def test_outside_the_main_thread_the_program_handles_signals() -> None:
    passes("""
        before = [signal.getsignal(number) for number in sorted(ALL)]

        def other():
            one = Signals(ALL)
            one.expect()
            one.install()
            one.wake()
            assert select.select([one], [], [], 5)[0]
            one.restore()

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        same([signal.getsignal(number) for number in sorted(ALL)], before)
        same(signal.set_wakeup_fd(-1), -1)
    """)


def test_signals_can_be_blocked() -> None:
    passes("""
        one = Signals(ALL)
        one.expect()
        one.block()
        same(blocked(), set(ALL))
        me(signal.SIGHUP)
        same(one.take(), [])
        one.unblock()
        same(blocked(), set())
        same(one.take(), [signal.SIGHUP])
        one.block()
        me(signal.SIGTERM)
        one.install()
        same(blocked(), set())
        same(one.take(), [signal.SIGTERM])
    """)


#: The process of the next test executes this.
AFTER = """
import signal, sys
from picowsgi.system.signals import ALL, Signals

one = Signals(ALL, earlier=int(sys.argv[1]))
one.install()
found = one.take()
assert sorted(found) == sorted((signal.SIGHUP, signal.SIGUSR2, signal.SIGTERM)), found
print("done")
"""


def test_no_signal_is_lost_when_the_process_executes_another_program() -> None:
    passes(f"""
        one = Signals(ALL)
        one.install()
        me(signal.SIGUSR2)  # stays in the pipe
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        one.block()
        os.kill(os.getpid(), signal.SIGTERM)  # the other thread takes it
        signal.pthread_kill(threading.get_ident(), signal.SIGHUP)  # stays pending
        os.set_inheritable(one.fileno(), True)
        os.execv(sys.executable, [sys.executable, "-c", {AFTER!r}, str(one.fileno())])
    """)


@pytest.mark.skipif(PYPY, reason="its faulthandler writes no such stacks")
def test_a_quit_writes_the_stacks_of_all_threads() -> None:
    error = passes("""
        one = Signals(FEW)
        one.expect()
        one.install()
        me(signal.SIGQUIT)
        same(one.take(), [signal.SIGQUIT])
        one.restore()
    """)
    assert "most recent call first" in error
    ended = run("""
        one = Signals(FEW)
        one.expect()
        one.install()
        one.restore()
        me(signal.SIGQUIT)
    """)
    assert ended.returncode == -3


def test_a_process_without_standard_error_has_no_stacks() -> None:
    passes("""
        sys.stderr = None
        one = Signals(FEW)
        one.expect()
        one.install()
        me(signal.SIGQUIT)
        same(one.take(), [signal.SIGQUIT])
        assert not faulthandler.unregister(signal.SIGQUIT)
    """)


# The exit of a process that only serves


def test_a_second_stop_does_not_disturb_the_exit_of_the_process_for_some_seconds() -> None:
    passes("""
        one = Signals(FEW, whole_process=True)
        one.expect()
        one.install()
        one.restore()
        me(signal.SIGTERM)
    """)
    ended = run("""
        one = Signals(FEW, whole_process=True)
        one.expect()
        one.install()
        one.restore()
        later = time.monotonic() + 5.1
        time.monotonic = lambda: later
        me(signal.SIGTERM)
    """)
    assert ended.returncode == -15


def test_the_delay_does_not_hold_for_children_of_the_process() -> None:
    passes("""
        one = Signals(FEW, whole_process=True)
        one.expect()
        one.install()
        one.restore()
        pid = os.fork()
        if pid == 0:
            me(signal.SIGTERM)
            os._exit(1)
        same(status(pid), -15)
    """)


def test_a_stop_while_the_program_ends_is_ignored_unless_the_program_continues() -> None:
    for outlives in ("", "one.outlive_exit()"):
        passes(f"""
            one = Signals(FEW, whole_process=True)
            one.expect()
            {outlives}
            atexit._run_exitfuncs()
            ignored = signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
            same(ignored, {not outlives})
        """)
    passes("""
        one = Signals(FEW)
        one.expect()
        atexit._run_exitfuncs()
        same(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)
    """)


@pytest.mark.parametrize("whole", [True, False])
def test_a_stop_ends_the_first_process_of_a_container_while_it_loads(whole: bool) -> None:
    ended = run(f"""
        signals._INIT = os.getpid()
        one = Signals(FEW, whole_process={whole})
        one.expect()
        print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
        me(signal.SIGTERM)
    """)
    assert ended.returncode == (143 if whole else -15)


# Children


CHILD = """
        one = Signals(ALL)
        one.expect()
        one.install()
        descriptor = one.fileno()
"""


def test_a_child_of_the_application_has_the_default_handlers_and_no_pipe() -> None:
    passes(
        CHILD
        + """
        pid = os.fork()
        if pid == 0:
            handlers = {signal.getsignal(number) for number in ALL - {signal.SIGINT}}
            same(handlers, {signal.SIG_DFL})
            same(signal.getsignal(signal.SIGINT), signal.default_int_handler)
            same(blocked(), set())
            assert not is_open(descriptor)
            assert not is_open(descriptor + 1)
            assert not faulthandler.unregister(signal.SIGQUIT)
            same(signal.set_wakeup_fd(-1), -1)
            os._exit(7)
        same(status(pid), 7)
        same(blocked(), set())
        me(signal.SIGTERM)
        me(signal.SIGCHLD)
        assert signal.SIGTERM in one.take()
        """
    )


def test_a_signal_that_was_blocked_before_a_fork_is_blocked_afterwards() -> None:
    passes(
        CHILD
        + """
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGTERM})
        pid = os.fork()
        if pid == 0:
            same(blocked(), {signal.SIGALRM})
            os._exit(7)
        same(status(pid), 7)
        same(blocked(), {signal.SIGALRM, signal.SIGTERM})
        """
    )


def test_the_parent_handles_a_signal_that_arrives_during_the_fork() -> None:
    passes(
        CHILD
        + """
        os.register_at_fork(before=lambda: me(signal.SIGUSR1))
        pid = os.fork()
        if pid == 0:
            same(signal.sigpending(), set())
            os._exit(7)
        same(status(pid), 7)
        assert signal.SIGUSR1 in one.take()
        """
    )


def test_a_child_of_a_child_has_the_handlers_of_its_parent() -> None:
    passes("""
        def mine(*_):
            pass

        reader, writer = os.pipe()
        numbers = {signal.SIGTERM, signal.SIGUSR1}
        held = DefaultInChildren(numbers, lambda: os.close(reader))
        pid = os.fork()
        if pid == 0:
            assert not is_open(reader)
            os.dup2(writer, reader)  # a file of the child
            signal.signal(signal.SIGTERM, mine)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
            grandchild = os.fork()
            if grandchild == 0:
                assert is_open(reader)
                same(signal.getsignal(signal.SIGTERM), mine)
                same(blocked(), {signal.SIGUSR1})
                os._exit(7)
            same(blocked(), {signal.SIGUSR1})
            os._exit(status(grandchild))
        same(status(pid), 7)
        assert is_open(reader)
    """)


def test_children_do_not_restore_removed_handlers() -> None:
    passes("""
        one = Signals(ALL)
        one.expect()
        one.install()
        one.restore()
        signal.signal(signal.SIGTERM, lambda *_: None)
        pid = os.fork()
        if pid == 0:
            os._exit(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
        same(status(pid), 0)
    """)


def test_a_worker_closes_the_pipe_of_its_parent() -> None:
    passes("""
        from picowsgi.system import fork_guard
        one = Signals(ALL)
        one.expect()
        one.install()
        descriptor = one.fileno()
        with fork_guard.own_process():
            pid = os.fork()
        if pid == 0:
            assert is_open(descriptor)
            one.forget()
            assert not is_open(descriptor)
            same(signal.set_wakeup_fd(-1), -1)
            same(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)
            me(signal.SIGHUP)
            os._exit(7)
        same(status(pid), 7)
        same(one.take(), [signal.SIGCHLD])
        same(blocked(), set())
    """)


def test_without_handlers_there_is_nothing_to_close() -> None:
    passes("""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        one = Signals(ALL)
        one.forget()
        same(signal.getsignal(signal.SIGTERM), signal.SIG_IGN)
    """)
