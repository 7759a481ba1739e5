"""What stands around an application that may be interrupted, without a server."""

from __future__ import annotations

from picowsgi.wsgi.request_timeout import Guard


def test_a_guarded_application_calls_start_response_in_any_way() -> None:
    called: list[tuple[object, ...]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: object, exc_info: object = None) -> object:
        called.append((status, headers, exc_info))
        return written.append

    def application(_environ: object, start: object) -> list[bytes]:
        start("200 OK", [])(b"a")  # type: ignore[operator]
        start("200 OK", [], "error")  # type: ignore[operator]
        start("200 OK", [], exc_info="error")  # type: ignore[operator]
        start(status="200 OK", headers=[])  # type: ignore[operator]
        return [b"b"]

    guarded = Guard(application)  # type: ignore[arg-type]
    assert guarded({}, start_response) == [b"b"]  # type: ignore[arg-type]
    error = ("200 OK", [], "error")
    assert called == [("200 OK", [], None), error, error, ("200 OK", [], None)]
    assert written == [b"a"]
