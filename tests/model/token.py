"""Which thread runs the loop (csrc/token.c): a model of the token, explored exhaustively.

A step is the work of a thread between an acquire and the next release of the server's lock. Between
any two steps other threads may run, a request may arrive, and the clock of the watcher may tick.
The model does not have the rule (`pw_yield_pays`): its answer may be either at any time.

`explore` visits every state that can be reached in this way, and checks its invariants. It also
checks that from each state all requests can still be answered, and all threads can end after a
stop, by steps of the server alone, without another request or a stop.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

WATCHER = -1
NO_THREAD = -2
STALLED = 2  # PW_STALL_TICKS


class Rule(NamedTuple):
    """How the token is handed over. The code follows the defaults; others are known to be wrong."""

    carry_is_out: bool = True  # a holder that returns to Python without a request counts as out
    stop_wakes_all: bool = True  # these threads wait
    watch_is_woken: bool = True  # a holder that leaves wakes a watcher that sleeps
    retiring_passes_on: bool = True  # a surplus thread gives the token to another
    hold_wakes_loop: bool = True  # a thread that its client holds makes the watcher check


RIGHT = Rule()


class Thread(NamedTuple):
    """A serving thread."""

    #: unborn, python (about to call pw_next), idle, loop, app, held (its client does not read),
    #: carries (in Python, with the token), ended
    at: str = "not started"
    request: int = 0  # in the application; 0: none
    signalled: bool = False  # while it is idle


class State(NamedTuple):
    threads: tuple[Thread, ...]
    holder: int = NO_THREAD
    is_out: bool = False  # token.is_out
    age: int = 0  # ticks since token.tick, up to STALLED
    idle: tuple[int, ...] = ()  # the stack, its top last
    count: int = 1  # threads.count
    wants_thread: bool = False
    #: python (to call pw_watch), waits (for a tick), sleeps, loop, starts (a thread), ended
    watch: str = "python"
    watch_signalled: bool = False
    news: bool = False
    news_to_come: bool = False
    to_hold: int = 0  # clients that may still stop reading
    asked: int = 0  # requests that have arrived
    poller: tuple[int, ...] = ()  # requests that the loop has not seen yet
    ready: tuple[int, ...] = ()
    done: frozenset[int] = frozenset()
    stopping: bool = False  # pw_server_stop was called
    stopped: bool = False

    def with_thread(self, number: int, thread: Thread) -> State:
        threads = (*self.threads[:number], thread, *self.threads[number + 1 :])
        return self._replace(threads=threads)


class WrongError(Exception):
    """A property does not hold."""


class Model:
    """All steps: at most `threads` threads, `requests` in all, of which `stuck` never ends."""

    def __init__(
        self,
        rule: Rule = RIGHT,
        *,
        threads: int = 2,
        requests: int = 2,
        stuck: int = 0,
        stops: bool = False,
        news: bool = False,
        held_up: bool = False,
        slow: int = 0,
        pays: tuple[bool, ...] = (False, True),
    ) -> None:
        """`held_up`: once thread A handles news, it waits for the GIL without end.

        `slow`: clients that stop reading, perhaps without end; each holds a thread, which is
        replaced.
        """
        self._rule = rule
        self._threads = threads
        self._requests = requests
        self._stuck = stuck
        self._stops = stops
        self._held_up = held_up
        self._pays = pays
        spare = slow if threads > 1 else 0
        unborn = (Thread(),) * (threads + spare - 1)
        self.start = State((Thread("python"), *unborn), news_to_come=news, to_hold=slow)

    def _most(self, state: State) -> int:
        """token_threads_most."""
        if self._threads == 1:
            return 1
        return self._threads + min(_held(state), self._threads)

    # ---------------------------------------------------------------- invariants

    def check(self, state: State) -> None:
        """Check the properties of each state (csrc/token.c); raises WrongError."""
        places = [*state.poller, *state.ready, *state.done]
        places += [thread.request for thread in state.threads if thread.request]
        if sorted(places) != list(range(1, state.asked + 1)):
            raise WrongError(f"a request is lost, or there twice: {sorted(places)}")
        if list(state.ready) != sorted(state.ready):
            raise WrongError(f"ready is not in order: {state.ready}")
        for number, thread in enumerate(state.threads):
            if thread.at == "loop" and state.holder != number and not state.stopped:
                raise WrongError(f"thread {number} runs the loop without the token")
            if (thread.at == "idle") != (number in state.idle) and not thread.signalled:
                raise WrongError(f"thread {number} waits, and is not in the stack")
        if state.watch == "loop" and state.holder != WATCHER and not state.stopped:
            raise WrongError("the watcher runs the loop without the token")
        if state.is_out and state.holder < 0:
            raise WrongError("no thread is out")

    def is_over(self, state: State) -> bool:
        """Whether all is done: each request is taken, no news wait; after a stop all have ended."""
        if state.stopped:
            return state.watch == "ended" and all(
                thread.at in ("ended", "not started")
                or thread.request == self._stuck != 0
                or self._waits_for_gil(number, thread)
                for number, thread in enumerate(state.threads)
            )
        if state.stopping:
            return False
        left = set(range(1, state.asked + 1)) - state.done - {self._stuck}
        if _held(state) > len(state.threads) - self._threads:  # as many again are held, and more
            return True
        inside = [thread.request for thread in state.threads if thread.request]
        return (not (left - set(inside)) and not state.news) or self._all_are_stuck(state)

    def _all_are_stuck(self, state: State) -> bool:
        """One thread and a request that never ends: no other request can get a response."""
        return self._threads == 1 and any(
            thread.request == self._stuck != 0 for thread in state.threads
        )

    def _waits_for_gil(self, number: int, thread: Thread) -> bool:
        return self._held_up and number == 0 and thread.at == "carries"

    # ---------------------------------------------------------------- the steps

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Each next step of the server, and the state after it."""
        for number, thread in enumerate(state.threads):
            for label, after in self._thread(state, number, thread):
                yield f"{'ABCD'[number]}: {label}", after
        for label, after in self._watch(state):
            yield f"watcher: {label}", after

    def surprises(self, state: State) -> Iterator[tuple[str, State]]:
        """Events from outside."""
        if state.asked < self._requests and not state.stopping:
            asked = state.asked + 1
            yield (
                f"request {asked} arrives",
                state._replace(asked=asked, poller=(*state.poller, asked)),
            )
        for number, thread in enumerate(state.threads):
            if thread.at == "app" and thread.request != self._stuck and state.to_hold:
                held = state._replace(to_hold=state.to_hold - 1)
                held = held.with_thread(number, thread._replace(at="held"))
                if held.watch == "loop" and self._rule.hold_wakes_loop:
                    held = held._replace(watch_signalled=True)
                yield f"the client of {thread.request} does not read", held
            if thread.at == "held":
                reads = state.with_thread(number, thread._replace(at="app"))
                yield f"the client of {thread.request} reads", reads
        if state.news_to_come:
            yield "there are news", state._replace(news=True, news_to_come=False)
        if self._stops and not state.stopping:
            yield "pw_server_stop", state._replace(stopping=True)

    def _thread(self, state: State, number: int, thread: Thread) -> Iterator[tuple[str, State]]:
        match thread.at:
            case "python" | "carries" if not self._waits_for_gil(number, thread):
                without = state._replace(news=False)
                yield from self._take(without.with_thread(number, Thread("python")), number)
            case "app" if thread.request != self._stuck:
                done = state._replace(done=state.done | {thread.request})
                yield from self._take(done.with_thread(number, Thread("python")), number)
            case "held" if state.stopping:  # its time is over
                yield "gives up", state.with_thread(number, thread._replace(at="app"))
            case "idle" if thread.signalled:
                yield from self._take(state, number)
            case "loop":
                yield from self._loop(state, number)

    def _take(self, state: State, number: int) -> Iterator[tuple[str, State]]:
        """pw_token_take: from the entry, or the end of a wait, up to a wait or the return."""
        for pays in self._pays:
            without = state._replace(idle=tuple(each for each in state.idle if each != number))
            if state.stopped:
                yield "ends", without.with_thread(number, Thread("ended"))
                return
            if state.count > self._most(state):
                yield "retires", self._retire(without, number)
                return
            free = (
                state.holder in (number, NO_THREAD)
                or (state.is_out and state.age >= STALLED)
                or (state.is_out and pays)
            )
            if free:
                given = without._replace(holder=number, is_out=False, age=0)
                yield "takes the token", given.with_thread(number, Thread("loop"))
            elif state.ready:
                picked = without._replace(ready=state.ready[1:])
                yield (
                    f"picks {state.ready[0]}",
                    picked.with_thread(number, Thread("app", state.ready[0])),
                )
            elif state.news:
                yield "goes for news", without.with_thread(number, Thread("python"))
            else:
                waits = state.with_thread(number, Thread("idle"))
                if number not in state.idle:
                    waits = waits._replace(idle=(*state.idle, number))
                yield "waits", waits

    def _retire(self, state: State, number: int) -> State:
        """token_retire."""
        state = state.with_thread(number, Thread())._replace(count=state.count - 1)
        if self._rule.retiring_passes_on and state.holder in (number, NO_THREAD):
            if state.idle:
                state = self._wake_idle(state)
            else:
                state = state._replace(holder=NO_THREAD, is_out=False, age=0)
        return self._wake_watch(state)

    def _loop(self, state: State, number: int) -> Iterator[tuple[str, State]]:
        """pw_loop by a serving thread, one turn."""
        if state.stopped:
            yield "ends", state.with_thread(number, Thread("ended"))
        elif state.ready:
            yield from self._keep(state._replace(ready=state.ready[1:]), number, state.ready[0])
        elif state.poller:
            yield from self._keep(state._replace(poller=state.poller[1:]), number, state.poller[0])
        elif self._is_drained(state):
            yield "stops", self._stop(state).with_thread(number, Thread("ended"))
        elif state.news:
            yield "carries the token", self._carry(state, number)

    def _is_drained(self, state: State) -> bool:
        """All connections are closed, or the time for that is over: requests may never end."""
        left = [
            thread
            for thread in state.threads
            if thread.request not in (0, self._stuck) and thread.at != "held"
        ]
        return state.stopping and not state.poller and not state.ready and not left

    def _keep(self, state: State, number: int, request: int) -> Iterator[tuple[str, State]]:
        """pw_thread_take and pw_token_keep."""
        out = state.with_thread(number, Thread("app", request))._replace(is_out=True, age=0)
        out = self._wake_watch(out)
        if False in self._pays or self._threads == 1:
            yield f"keeps the token for {request}", out
        if True not in self._pays or self._threads == 1:
            return
        if state.idle:
            free = out._replace(holder=NO_THREAD, is_out=False, idle=state.idle[:-1])
            yield f"yields the token for {request}", self._signal(free, state.idle[-1])
        elif state.count < self._most(state):
            wanted = out._replace(wants_thread=True, watch_signalled=True)
            yield f"wants a thread for {request}", wanted
        else:
            yield f"keeps the token for {request}", out

    def _carry(self, state: State, number: int) -> State:
        """pw_token_carry."""
        state = state.with_thread(number, Thread("carries"))
        if not self._rule.carry_is_out:
            return state
        return self._wake_watch(state._replace(is_out=True, age=0))

    def _signal(self, state: State, number: int) -> State:
        return state.with_thread(number, state.threads[number]._replace(signalled=True))

    def _wake_watch(self, state: State) -> State:
        if state.watch != "sleeps" or not self._rule.watch_is_woken:
            return state
        return state._replace(watch_signalled=True)

    def _stop(self, state: State) -> State:
        """pw_token_stop."""
        state = state._replace(stopped=True, watch_signalled=True)
        if self._rule.stop_wakes_all:
            for number in state.idle:
                state = self._signal(state, number)
        return state

    # ---------------------------------------------------------------- the watcher

    def _watch(self, state: State) -> Iterator[tuple[str, State]]:
        match state.watch:
            case "python":
                yield from self._act(state, "is called")
            case "starts":
                new = state.threads.index(Thread())
                yield (
                    "starts a thread",
                    state.with_thread(new, Thread("python"))._replace(watch="python"),
                )
                yield (
                    "cannot start a thread",
                    state._replace(watch="python", count=state.count - 1),
                )
            case "waits":
                ticked = state._replace(age=min(state.age + 1, STALLED))
                yield from self._act(ticked, "ticks")
                if state.watch_signalled:
                    yield from self._act(state._replace(watch_signalled=False), "is woken")
                if state.holder != NO_THREAD and not state.is_out and not state.watch_signalled:
                    yield "sleeps", state._replace(watch="sleeps")
            case "sleeps" if state.watch_signalled:
                yield from self._act(state._replace(watch_signalled=False), "is woken")
            case "loop":
                yield from self._watch_loop(state)

    def _act(self, state: State, why: str) -> Iterator[tuple[str, State]]:
        """watch_acts, and then the wait."""
        if state.stopped:
            yield f"{why}, ends", state._replace(watch="ended")
            return
        wanted = state.wants_thread and state.is_out
        state = state._replace(wants_thread=False, watch="waits")
        busy = sum(thread.at == "app" for thread in state.threads)
        unheld = state.holder == NO_THREAD and (state.age > 0 or busy >= state.count)
        wanted |= unheld or (state.is_out and state.age >= STALLED)
        if not wanted:
            yield f"{why}, waits", state
        elif state.idle:
            yield f"{why}, wakes a thread", self._wake_idle(state)
        elif state.count < self._most(state):
            yield f"{why}, asks for a thread", state._replace(count=state.count + 1, watch="starts")
        else:
            taken = state._replace(holder=WATCHER, is_out=False, age=0, watch="loop")
            yield f"{why}, takes the token", taken

    def _wake_idle(self, state: State) -> State:
        """pw_token_wake_idle."""
        given = state._replace(holder=state.idle[-1], is_out=False, age=0, idle=state.idle[:-1])
        return self._signal(given, state.idle[-1])

    def _watch_loop(self, state: State) -> Iterator[tuple[str, State]]:
        """pw_loop by the watcher, one turn, and the end of watch_loop."""
        if state.stopped:
            yield "ends", state._replace(watch="ended")
        elif state.poller:
            read = state._replace(poller=state.poller[1:], ready=(*state.ready, state.poller[0]))
            yield f"makes {state.poller[0]} ready", read
            if state.idle:
                yield "looks up", state
        elif self._is_drained(state):
            yield "stops", self._stop(state)._replace(watch="ended")
        something = state.ready or state.news
        if something and state.idle and not state.poller and not state.stopped:
            yield "gives the token back", self._wake_idle(state)._replace(watch="waits")
        elif state.watch_signalled and not state.stopped:
            looks = state._replace(watch_signalled=False)
            if state.count < self._most(state) and not state.idle:
                free = looks._replace(holder=NO_THREAD, is_out=False, age=0, watch="waits")
                yield "leaves the token for a thread", free
            else:
                yield "looks for nothing", looks


def _held(state: State) -> int:
    return sum(thread.at == "held" for thread in state.threads)


class Outcome(NamedTuple):
    states: int
    wrong: str  # the property that does not hold, or empty
    trace: tuple[str, ...]  # the shortest way there


def explore(model: Model) -> Outcome:
    """Visit all states, the nearest first; then find those from which all can be done."""
    came_from: dict[State, tuple[State, str] | None] = {model.start: None}
    before: defaultdict[State, list[State]] = defaultdict(list)
    waiting = deque([model.start])
    try:
        while waiting:
            state = waiting.popleft()
            model.check(state)
            steps = list(model.steps(state))
            for _, after in steps:
                before[after].append(state)
            for label, after in (*steps, *model.surprises(state)):
                if after not in came_from:
                    came_from[after] = state, label
                    waiting.append(after)
    except WrongError as error:
        return Outcome(len(came_from), str(error), _trace(came_from, state))
    good = {state for state in came_from if model.is_over(state)}
    waiting.extend(good)
    while waiting:
        for state in before[waiting.popleft()]:
            if state not in good:
                good.add(state)
                waiting.append(state)
    for state in came_from:  # the nearest first
        if state not in good:
            return Outcome(len(came_from), "it never ends", _trace(came_from, state))
    return Outcome(len(came_from), "", ())


def _trace(came_from: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    trace = []
    while (step := came_from[state]) is not None:
        state, label = step
        trace.append(label)
    return tuple(reversed(trace))
