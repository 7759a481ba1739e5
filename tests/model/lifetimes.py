"""What a response lends to the core, and for how long: a model of it, explored exhaustively.

Three serving threads answer two requests of one connection. A step is what no other thread, and no
signal, can divide: one operation of Python, or one call into the core, which has the server's lock.
Between any two steps another thread may run, a signal's handler may raise in the thread, the socket
may take more, and the client may leave. `explore` visits every state that can be reached.

The names are those of the code: `loans` and `request.lends` in Python, `pw_respond`, `pw_news` and
their like in the core. A *piece* is a bytes object that the core reads without a copy; it lives for
as long as `loans` or the frame of a thread refers to it. What must hold is in `Model.check`.

A rule says how loans are kept. The code follows RIGHT. Others are known to be wrong, and show that
the model can see it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Piece = tuple[int, int]  # of which exchange, and which of its items
CONNECTION = 0  # the connection's number, which all of its exchanges share
REQUESTS = 2
THREADS = 3


class Rule(NamedTuple):
    """How loans are kept."""

    by_exchange: bool = True  # they are named by the exchange; else by the connection
    before: bool = True  # they are registered before the core is called; else after it
    at_once: bool = True  # no signal can come between taking news and dropping the loan


RIGHT = Rule()


class Thread(NamedTuple):
    """One serving thread: a Python frame, and its `pw_thread` in the core."""

    at: str = "pw_next"  # the operation that it does next
    # The frame.
    pieces: tuple[Piece, ...] = ()  # that its local variables refer to
    news: int = -1  # taken from the core, and not acted upon
    # pw_thread
    exchange: int = 0  # request.exchange; with has_conn
    has_conn: bool = False  # the exchange is neither ended nor abandoned
    lends: bool = False  # request.lends
    # Where loans are registered after the call: the next one tells the core that this is done.
    hold: int = -1  # the exchange
    hold_sent: bool = False  # before that


class Conn(NamedTuple):
    """The connection (`pw_conn`)."""

    state: str = "ready"  # a request is complete; app, sending, idle, closed
    exchange: int = 1  # of the request that is next, or at hand
    lends: bool = False  # of its response, once that has been handed over
    borrowed: tuple[Piece, ...] = ()  # the pieces in its output
    gone: bool = False  # the client has left while the application had the request
    holder: int = -1  # the thread that is about to register what it has lent; -1: none


class State(NamedTuple):
    threads: tuple[Thread, ...] = (Thread(),) * THREADS
    conn: Conn = Conn()
    loans: frozenset[tuple[int, tuple[Piece, ...]]] = frozenset()  # a dict: by key
    news: frozenset[int] = frozenset()  # that pw_news will tell
    posted: frozenset[int] = frozenset()  # exchanges of which news have been posted
    signals: int = 0  # that may still come

    def with_thread(self, number: int, thread: Thread) -> State:
        threads = (*self.threads[:number], thread, *self.threads[number + 1 :])
        return self._replace(threads=threads)


class WrongError(Exception):
    """A property does not hold."""


class Model:
    """`items`: how many pieces each response has. 1: it is whole; 2: a list; 0: nothing is lent."""

    def __init__(self, rule: Rule, items: tuple[int, ...] = (1, 1), signals: int = 0) -> None:
        self._rule = rule
        self._items = items
        self.start = State(signals=signals)

    def _key(self, exchange: int) -> int:
        return exchange if self._rule.by_exchange else CONNECTION

    # ---------------------------------------------------------------- the core, under its lock

    def _post(self, state: State, exchange: int) -> State:
        """pw_tell: news that nothing of this exchange is needed any more."""
        if self._rule.by_exchange and exchange in state.posted:
            raise WrongError(f"news of exchange {exchange} are posted twice")
        return state._replace(
            news=state.news | {self._key(exchange)}, posted=state.posted | {exchange}
        )

    def _sent(self, state: State) -> State:
        """pw_conn_sent: the exchange is over for the core."""
        conn = state.conn
        if conn.holder >= 0:
            holder = state.threads[conn.holder]
            state = state.with_thread(conn.holder, holder._replace(hold_sent=True))
        elif conn.lends:
            state = self._post(state, conn.exchange)
        return state._replace(conn=conn._replace(lends=False, holder=-1))

    def _close(self, state: State) -> State:
        """pw_conn_close."""
        state = self._sent(state._replace(conn=state.conn._replace(borrowed=())))
        return state._replace(conn=state.conn._replace(state="closed"))

    def _finished(self, state: State) -> State:
        """pw_conn_finished, and pw_conn_next once all is written."""
        conn = state.conn
        if conn.gone:
            return self._close(state)
        if conn.borrowed:
            return state._replace(conn=conn._replace(state="sending"))
        state = self._sent(state)
        if conn.exchange < REQUESTS:
            return state._replace(conn=Conn(exchange=conn.exchange + 1))
        return state._replace(conn=state.conn._replace(state="idle"))

    def _come_back(self, state: State, number: int) -> State:
        """The first thing that pw_next, pw_settle and pw_thread_free do."""
        thread = state.threads[number]
        if thread.has_conn:  # the exchange is abandoned
            state = state.with_thread(number, thread._replace(has_conn=False, lends=False))
            return self._close(state._replace(conn=state.conn._replace(lends=thread.lends)))
        if thread.hold >= 0:  # pw_thread_confirm
            state = state.with_thread(number, thread._replace(hold=-1, hold_sent=False))
            if thread.hold_sent:
                return self._post(state, thread.hold)
            return state._replace(conn=state.conn._replace(holder=-1))
        return state

    def _end(self, state: State, number: int) -> State:
        """The last call for an exchange: pw_respond, or pw_send_end."""
        thread = state.threads[number]
        held = bool(state.conn.borrowed) and not self._rule.before and not state.conn.gone
        lends = thread.lends if self._rule.before else held
        conn = state.conn._replace(lends=lends, holder=number if held else -1)
        thread = thread._replace(
            at="hold" if held else "return",
            has_conn=False,
            lends=False,
            hold=thread.exchange if held else -1,
        )
        return self._finished(state._replace(conn=conn).with_thread(number, thread))

    # ---------------------------------------------------------------- steps of the loop

    def _loop(self, state: State) -> Iterator[tuple[str, State]]:
        """What the loop does for the connection, in whichever thread it runs."""
        conn = state.conn
        if conn.state == "sending":
            rest = conn._replace(borrowed=conn.borrowed[1:])
            yield f"the socket takes {conn.borrowed[0]}", self._finished(state._replace(conn=rest))
        if conn.state == "app" and not conn.gone:
            yield "the client leaves", state._replace(conn=conn._replace(gone=True))
        if conn.state in ("ready", "sending", "idle"):
            yield "the client leaves", self._close(state)

    # ---------------------------------------------------------------- steps of a thread

    def _step(self, state: State, number: int) -> Iterator[tuple[str, State]]:
        thread = state.threads[number]
        match thread.at:
            case "pw_next":
                yield from self._take_request(state, number)
                yield from self._take_news(state, number)
            case "begin":
                yield from self._take_news(state, number)
                lends = self._rule.before and bool(thread.pieces)
                begun = thread._replace(at="register" if lends else "send 0", lends=lends)
                label = "request.lends = 1" if lends else "nothing to register yet"
                yield label, state.with_thread(number, begun)
            case "register":
                yield self._register(state, number, then="send 0")
            case "hold":
                yield self._register(state, number, then="return")
            case "return":
                frame = thread._replace(at="come back", pieces=())
                yield "return", state.with_thread(number, frame)
            case "pop":
                popped = thread._replace(at="begin" if thread.has_conn else "pw_next", news=-1)
                dropped = self._pop(state, thread.news).with_thread(number, popped)
                yield f"loans.pop({thread.news})", dropped
            case "come back" | "raised":
                back = self._come_back(state, number)
                idle = back.threads[number]._replace(at="pw_next", exchange=0)
                yield "pw_next", back.with_thread(number, idle)
                if thread.at == "raised":
                    yield "pw_thread_free", back.with_thread(number, idle._replace(at="ended"))
            case "ended":
                pass
            case _:
                yield from self._send(state, number, int(thread.at.removeprefix("send ")))

    def _take_request(self, state: State, number: int) -> Iterator[tuple[str, State]]:
        thread, conn = state.threads[number], state.conn
        if conn.state != "ready":
            return
        pieces = tuple((conn.exchange, item) for item in range(self._items[conn.exchange - 1]))
        taken = thread._replace(at="begin", pieces=pieces, exchange=conn.exchange, has_conn=True)
        state = state._replace(conn=conn._replace(state="app"))
        yield f"pw_next gives request {conn.exchange}", state.with_thread(number, taken)

    def _take_news(self, state: State, number: int) -> Iterator[tuple[str, State]]:
        for news in state.news:
            rest = state._replace(news=state.news - {news})
            if self._rule.at_once:
                yield f"pw_news and loans.pop({news})", self._pop(rest, news)
            else:
                taken = state.threads[number]._replace(at="pop", news=news)
                yield f"pw_news says {news}", rest.with_thread(number, taken)

    def _register(self, state: State, number: int, then: str) -> tuple[str, State]:
        thread = state.threads[number]
        key = self._key(thread.exchange)
        others = {(other, pieces) for other, pieces in state.loans if other != key}
        loans = frozenset(others | {(key, thread.pieces)})
        registered = state._replace(loans=loans).with_thread(number, thread._replace(at=then))
        return f"loans[{key}] = {thread.pieces}", registered

    def _pop(self, state: State, key: int) -> State:
        return state._replace(loans=frozenset(loan for loan in state.loans if loan[0] != key))

    def _send(self, state: State, number: int, item: int) -> Iterator[tuple[str, State]]:
        """pw_respond, or pw_send_data for an item: the socket takes it, or the core borrows it."""
        thread, conn = state.threads[number], state.conn
        count = self._items[thread.exchange - 1]
        if item == count:
            yield "pw_send_end", self._end(state, number)
            return
        name = "pw_respond" if count == 1 else "pw_send_data"
        then = state.with_thread(number, thread._replace(at=f"send {item + 1}"))
        kept = then._replace(conn=conn._replace(borrowed=(*conn.borrowed, thread.pieces[item])))
        outcomes = [] if conn.borrowed else [(f"{name}({thread.pieces[item]}), all taken", then)]
        if not conn.gone:
            outcomes.append((f"{name}({thread.pieces[item]}), borrowed", kept))
        for label, outcome in outcomes:
            yield label, self._end(outcome, number) if count == 1 else outcome

    # ---------------------------------------------------------------- everything that can happen

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Each step that can be next, with the state after it."""
        yield from self._loop(state)
        for number, thread in enumerate(state.threads):
            name = "ABC"[number]
            for label, after in self._step(state, number):
                yield f"{name}: {label}", after
            if state.signals and thread.at not in ("pw_next", "raised", "ended"):
                raised = thread._replace(at="raised", pieces=(), news=-1)
                after = state._replace(signals=state.signals - 1).with_thread(number, raised)
                yield f"{name}: a signal's handler raises", after

    def check(self, state: State) -> None:
        """What must hold; raises WrongError."""
        alive = {piece for _, pieces in state.loans for piece in pieces}
        alive.update(piece for thread in state.threads for piece in thread.pieces)
        for piece in state.conn.borrowed:
            if piece not in alive:
                raise WrongError(f"the core may read {piece}, which is freed")
            if piece[0] != state.conn.exchange:
                raise WrongError(f"exchange {state.conn.exchange} is sent bytes of {piece}")
        if any(thread.at not in ("pw_next", "ended") for thread in state.threads):
            return
        if state.conn.state == "app":
            raise WrongError("the client waits for ever: no thread has its request")
        if state.loans and not state.news and state.conn.state != "sending":
            raise WrongError(f"never dropped: {sorted(state.loans)}")


class Outcome(NamedTuple):
    states: int
    wrong: str  # the property that does not hold, or empty
    trace: tuple[str, ...]  # the shortest way to it


def explore(model: Model, saw: Callable[[str], object] = lambda label: None) -> Outcome:
    """Visit all states, the nearest first, until a property does not hold; `saw` each step."""
    came_from: dict[State, tuple[State, str] | None] = {model.start: None}
    waiting = deque([model.start])
    state = model.start
    try:
        while waiting:
            state = waiting.popleft()
            model.check(state)
            for label, after in model.steps(state):
                saw(label)
                if after not in came_from:
                    came_from[after] = state, label
                    waiting.append(after)
    except WrongError as error:
        trace = []
        while (step := came_from[state]) is not None:
            state, label = step
            trace.append(label)
        return Outcome(len(came_from), str(error), tuple(reversed(trace)))
    return Outcome(len(came_from), "", ())
