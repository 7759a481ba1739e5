"""A model of the loans of responses to the core. It is explored exhaustively.

Three serving threads answer two requests of one connection. A step is one operation of Python, or
one call into the core, which holds the server's lock: nothing can interrupt a step. Between two
steps another thread may run, a signal handler may raise an exception in the thread, the socket may
take more, and the client may disconnect. `explore` visits every state that can be reached in this
way.

The names are those of the code: `loans` and `request.lends` in Python, `pw_respond`, `pw_news` and
their like in the core. A *piece* is a bytes object that the core reads without a copy. It lives for
as long as `loans` or the frame of a thread refers to it. `Model.check` has the invariants.

A rule says how loans are kept. The code follows RIGHT. The other rules are known to be wrong: with
them the model must find a fault.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Piece = tuple[int, int]  # of which exchange, and which of its items
CONNECTION = 0  # the number of the connection, instead of that of an exchange
REQUESTS = 2
THREADS = 3


class Rule(NamedTuple):
    """How loans are kept."""

    by_exchange: bool = True  # the exchange gives the number of a loan; else the connection does
    before: bool = True  # Python registers a loan before it calls the core; else afterwards
    said_again: bool = True  # pw_news says the same again until pw_news_done; else only once


RIGHT = Rule()
#: The rule of an earlier version: pw_next reported to the core that Python had registered the loan.
FORMER = Rule(by_exchange=False, before=False, said_again=False)


class Thread(NamedTuple):
    """A serving thread: its frame in Python, and its `pw_thread` in the core."""

    at: str = "pw_next"  # its next step
    item: int = 0  # of its list
    # The frame.
    pieces: tuple[Piece, ...] = ()  # that its local variables refer to
    # pw_thread
    has_conn: bool = False  # the thread has taken a request, and the exchange is not over
    exchange: int = 0  # request.exchange
    lends: bool = False  # request.lends
    # Only with FORMER:
    hold: int = -1  # the exchange whose loan the thread is about to register
    hold_sent: bool = False  # the core has sent all of it meanwhile


class Conn(NamedTuple):
    """The connection (`pw_conn`)."""

    state: str = "ready"  # with a complete request; app, sending, idle, closed
    exchange: int = 1  # of the request that is ready or current
    borrowed: tuple[Piece, ...] = ()  # the pieces in its output
    loan: bool = False  # the core must name the exchange once nothing is borrowed
    gone: bool = False  # the client disconnected while the application had the request
    holder: int = -1  # only with FORMER: the thread that is about to register the loan


class State(NamedTuple):
    threads: tuple[Thread, ...] = (Thread(),) * THREADS
    conn: Conn = Conn()
    loans: frozenset[tuple[int, tuple[Piece, ...]]] = frozenset()  # a dict: pieces by number
    news: frozenset[int] = frozenset()  # numbers that pw_news will name
    said: int = -1  # the number that pw_news has named, until pw_news_done
    taker: int = -1  # the thread that holds Kept.lock
    named: frozenset[int] = frozenset()  # exchanges that the core has named
    signals: int = 0  # that may still happen

    def with_thread(self, number: int, thread: Thread) -> State:
        threads = (*self.threads[:number], thread, *self.threads[number + 1 :])
        return self._replace(threads=threads)


class WrongError(Exception):
    """A property does not hold."""


class Model:
    """All steps that a rule allows."""

    def __init__(self, rule: Rule, items: tuple[int, int], signals: int = 0) -> None:
        """`items`: what each response lends. 1: a whole body; more: a list; 0: nothing."""
        self._rule = rule
        self._items = items
        self.start = State(signals=signals)

    def check(self, state: State) -> None:
        """Check the properties of each state; raises WrongError."""
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
            raise WrongError("the client waits without end: no thread has its request")
        if state.loans and not state.news and state.said < 0 and state.conn.state != "sending":
            raise WrongError(f"never dropped: {sorted(state.loans)}")

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Each step that can be next, and the state after it."""
        yield from self._loop(state)
        for number, thread in enumerate(state.threads):
            if thread in state.threads[:number]:
                continue  # two threads in the same state can take the same steps
            name = "ABC"[number]
            for label, after in self._step(state, number):
                yield f"{name}: {label}", after
            if state.signals and thread.at not in ("pw_next", "raised", "ended"):
                raised = state.with_thread(number, thread._replace(at="raised", pieces=()))
                if state.taker == number:  # the thread releases the lock
                    raised = raised._replace(taker=-1)
                    if not self._rule.said_again:
                        raised = raised._replace(said=-1)
                yield (
                    f"{name}: a signal's handler raises",
                    raised._replace(signals=state.signals - 1),
                )

    # ---------------------------------------------------------------- the loop

    def _loop(self, state: State) -> Iterator[tuple[str, State]]:
        """The loop works for the connection; any thread may run the loop."""
        conn = state.conn
        if conn.state == "sending":
            rest = conn._replace(borrowed=conn.borrowed[1:])
            yield f"the socket takes {conn.borrowed[0]}", self._finished(state._replace(conn=rest))
        if conn.state == "app" and not conn.gone:
            yield "the client leaves", state._replace(conn=conn._replace(gone=True))
        if conn.state in ("ready", "sending", "idle"):
            yield "the client leaves", self._close(state)

    # ---------------------------------------------------------------- a thread

    def _step(self, state: State, number: int) -> Iterator[tuple[str, State]]:
        thread = state.threads[number]
        match thread.at:
            case "pw_next":
                yield from self._take_request(state, number)
                yield from self._take_news(state, number)
            case "begin":
                yield from self._take_news(state, number)
                lends = self._rule.before and bool(thread.pieces)
                begun = thread._replace(at="register" if lends else "send", lends=lends)
                label = "request.lends = 1" if lends else "nothing to register"
                yield label, state.with_thread(number, begun)
            case "register":
                whole = len(thread.pieces) == 1
                then = thread._replace(at="send" if whole else "append")
                yield self._register(state, then, number, thread.pieces if whole else ())
            case "append":
                then = thread._replace(at="send")
                yield self._register(state, then, number, thread.pieces[: thread.item + 1])
            case "send":
                yield from self._send(state, number)
            case "hold":
                yield self._register(state, thread._replace(at="return"), number, thread.pieces)
            case "return":
                yield "return", state.with_thread(number, thread._replace(at="back", pieces=()))
            case "pop":
                dropped = frozenset(loan for loan in state.loans if loan[0] != state.said)
                popped = state._replace(loans=dropped)
                yield (
                    f"loans.pop({state.said})",
                    popped.with_thread(number, thread._replace(at="done")),
                )
            case "done":
                then = thread._replace(at="begin" if thread.has_conn else "pw_next")
                done = state._replace(said=-1, taker=-1)
                yield "pw_news_done", done.with_thread(number, then)
            case "back" | "raised":
                back = self._come_back(state, number)
                yield "pw_next, or pw_settle", back
                if thread.at == "raised":
                    ended = back.threads[number]._replace(at="ended")
                    yield "pw_thread_free", back.with_thread(number, ended)

    def _take_request(self, state: State, number: int) -> Iterator[tuple[str, State]]:
        conn = state.conn
        if conn.state == "ready":
            pieces = tuple((conn.exchange, item) for item in range(self._items[conn.exchange - 1]))
            taken = Thread("begin", pieces=pieces, has_conn=True, exchange=conn.exchange)
            state = state._replace(conn=conn._replace(state="app"))
            yield f"pw_next gives request {conn.exchange}", state.with_thread(number, taken)

    def _take_news(self, state: State, number: int) -> Iterator[tuple[str, State]]:
        if state.taker >= 0:
            return  # another thread holds Kept.lock
        for news in state.news if state.said < 0 else {state.said}:
            said = state._replace(news=state.news - {news}, said=news, taker=number)
            taken = state.threads[number]._replace(at="pop")
            yield f"pw_news says {news}", said.with_thread(number, taken)

    def _number(self, exchange: int) -> int:
        return exchange if self._rule.by_exchange else CONNECTION

    def _register(
        self, state: State, then: Thread, number: int, pieces: tuple[Piece, ...]
    ) -> tuple[str, State]:
        loan = self._number(then.exchange)
        others = {each for each in state.loans if each[0] != loan}
        state = state._replace(loans=frozenset(others | {(loan, pieces)}))
        return f"loans[{loan}] = {pieces}", state.with_thread(number, then)

    def _send(self, state: State, number: int) -> Iterator[tuple[str, State]]:
        """pw_respond, or pw_send_data for an item: the core writes it at once, or borrows it."""
        thread, conn = state.threads[number], state.conn
        if thread.item == len(thread.pieces):
            yield "pw_send_end", self._end(state, number)
            return
        piece, whole = thread.pieces[thread.item], len(thread.pieces) == 1
        then = thread._replace(item=thread.item + 1)
        if then.item < len(thread.pieces) and self._rule.before:
            then = then._replace(at="append")
        taken = state.with_thread(number, then)
        borrowed = taken._replace(conn=conn._replace(borrowed=(*conn.borrowed, piece)))
        call = f"{'pw_respond' if whole else 'pw_send_data'}({piece})"
        if not conn.borrowed:
            yield f"{call}: the socket takes it", self._end(taken, number) if whole else taken
        if not conn.gone:
            yield f"{call}: borrowed", self._end(borrowed, number) if whole else borrowed

    # ---------------------------------------------------------------- the core, under its lock

    def _end(self, state: State, number: int) -> State:
        """pw_exchange_end."""
        thread, conn = state.threads[number], state.conn
        over = thread._replace(at="return", has_conn=False, lends=False)
        if self._rule.before:
            conn = conn._replace(loan=thread.lends)
        elif conn.borrowed and not conn.gone:
            over = over._replace(at="hold", hold=thread.exchange)
            conn = conn._replace(loan=True, holder=number)
        return self._finished(state._replace(conn=conn).with_thread(number, over))

    def _finished(self, state: State) -> State:
        """pw_conn_finished; and once all is written, conn_next."""
        conn = state.conn
        if conn.gone:
            return self._close(state)
        if conn.borrowed:
            return state._replace(conn=conn._replace(state="sending"))
        state = self._sent(state)
        if conn.exchange < REQUESTS:
            return state._replace(conn=Conn(exchange=conn.exchange + 1))
        return state._replace(conn=state.conn._replace(state="idle"))

    def _close(self, state: State) -> State:
        """pw_conn_close."""
        state = self._sent(state._replace(conn=state.conn._replace(borrowed=())))
        return state._replace(conn=state.conn._replace(state="closed"))

    def _sent(self, state: State) -> State:
        """pw_conn_sent."""
        conn = state.conn
        if conn.holder >= 0:
            holder = state.threads[conn.holder]
            state = state.with_thread(conn.holder, holder._replace(hold_sent=True))
        elif conn.loan:
            state = self._tell(state, conn.exchange)
        return state._replace(conn=conn._replace(loan=False, holder=-1))

    def _tell(self, state: State, exchange: int) -> State:
        """pw_news_add."""
        if self._rule.by_exchange and exchange in state.named:
            raise WrongError(f"exchange {exchange} is named twice")
        news = state.news | {self._number(exchange)}
        return state._replace(news=news, named=state.named | {exchange})

    def _come_back(self, state: State, number: int) -> State:
        """The begin of pw_next, pw_settle and pw_thread_free. The frame of the call is gone."""
        thread = state.threads[number]
        state = state.with_thread(number, Thread())
        if thread.has_conn:  # pw_exchange_abandon
            return self._close(state._replace(conn=state.conn._replace(loan=thread.lends)))
        if thread.hold >= 0 and thread.hold_sent:
            return self._tell(state, thread.hold)
        if thread.hold >= 0:
            return state._replace(conn=state.conn._replace(holder=-1))
        return state


class Outcome(NamedTuple):
    states: int
    wrong: str  # the property that does not hold, or empty
    trace: tuple[str, ...]  # the shortest way there


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
