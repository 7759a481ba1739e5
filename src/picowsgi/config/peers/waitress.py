"""The options of waitress and their equivalents: data only."""

from __future__ import annotations

from picowsgi.config.peers.row import NOTHING, TUNING, Row

ROWS = [
    Row(
        "host, port",
        "--host, --port",
        "the default is 127.0.0.1 and port 8000; waitress listens on all addresses and port 8080",
    ),
    Row("threads", "--threads"),
    Row("backlog", "--backlog"),
    Row("listen", "--bind", "`*:8080` is `:8080`"),
    Row("unix_socket", "--bind", "as `unix:PATH`"),
    Row("unix_socket_perms", "--unix-socket-mode"),
    Row("sockets", "--bind", "as `fd://N`"),
    Row("ipv4, ipv6, no-ipv4, no-ipv6", "--bind", "use an IPv4 or an IPv6 address"),
    Row("call", "--factory"),
    Row("connection_limit", "--max-connections"),
    Row(
        "channel_timeout",
        "--timeout-keep-alive",
        "75 s where waitress has 120 s; for a client that stops in the middle, use "
        "`--timeout-head`, `--timeout-body` and `--timeout-write`",
    ),
    Row("max_request_header_size", "--max-head-size"),
    Row("max_request_body_size", "--max-body-size"),
    Row("inbuf_overflow", "--body-memory"),
    Row("outbuf_high_watermark", "--response-buffer"),
    Row(
        "outbuf_overflow",
        "--response-spool",
        "unsent bytes of a stream above `--response-buffer` go to a file of at most this size; "
        "the server sends a file of the application without a copy",
    ),
    Row("expose_tracebacks, no-expose-tracebacks", "--debug"),
    Row("url_prefix", "--root-path"),
    Row(
        "trusted_proxy, clear_untrusted_proxy_headers, log_untrusted_proxy_headers",
        "--forwarded-allow-ips",
        "addresses and networks; clears these headers of all others if it is set",
    ),
    Row(
        "trusted_proxy_headers, trusted_proxy_count",
        NOTHING,
        "the server uses [all these headers](deployment.md#trusted-proxies), and finds the client "
        "by the addresses of the proxies",
    ),
    Row("url_scheme", NOTHING, "let the proxy send `X-Forwarded-Proto`"),
    Row("ident", NOTHING, "picowsgi does not change the application's own `Server` header"),
    Row("server_name", NOTHING, "`SERVER_NAME` comes from the socket or the proxy"),
    Row(
        "log_socket_errors, no-log-socket-errors",
        NOTHING,
        "a client that disconnects is not logged",
    ),
    Row(
        "recv_bytes, send_bytes, asyncore_use_poll, asyncore_loop_timeout, cleanup_interval, "
        "channel_request_lookahead",
        NOTHING,
        TUNING,
    ),
]
