"""The options of uvicorn and their equivalents: data only."""

from __future__ import annotations

from picowsgi.config.peers.row import DEFAULT, HTTP_ONLY, NOTHING, TLS, TUNING, WSGI_ONLY, Row

_ALWAYS = "the server always adds the header if the application does not"

ROWS = [
    Row("--host", "--host"),
    Row("--port", "--port"),
    Row("--uds", "--bind", "as `unix:PATH`"),
    Row("--fd", "--bind", "as `fd://N`"),
    Row("--backlog", "--backlog"),
    Row("--app-dir", "--app-dir"),
    Row("--factory", "--factory"),
    Row("--env-file", "--env-file", "variables that are set already keep their values"),
    Row("--reload", "--reload"),
    Row("--reload-dir, reload_dirs", "--reload-dir"),
    Row("--reload-include, reload_includes", "--reload-include"),
    Row("--reload-exclude, reload_excludes", "--reload-exclude"),
    Row("--reload-delay", DEFAULT, "the server looks for changes as often as it can afford"),
    Row("--workers", "--workers", "with `--reload` too"),
    Row("--loop, --http, --h11-max-incomplete-event-size", NOTHING, TUNING),
    Row("--http2", NOTHING, HTTP_ONLY),
    Row("--interface, --lifespan, --reset-contextvars", NOTHING, WSGI_ONLY),
    Row(
        "--ws, --ws-max-size, --ws-max-queue, --ws-ping-interval, --ws-ping-timeout, "
        "--ws-per-message-deflate",
        NOTHING,
        "a library of the application handles [WebSocket](websocket.md)",
    ),
    Row("--log-config", "--log-config", "a TOML or JSON file for `dictConfig`, not INI or YAML"),
    Row("--log-level", "--log-level", "`trace` is `debug`, and `critical` is `error`"),
    Row("--access-log, --no-access-log", "--access-log, --no-access-log"),
    Row(
        "--use-colors, --no-use-colors",
        NOTHING,
        "set the variables `FORCE_COLOR` and `NO_COLOR`",
    ),
    Row(
        "--proxy-headers",
        DEFAULT,
        "`--forwarded-allow-ips` names the proxies that the server trusts",
    ),
    Row("--no-proxy-headers", "--forwarded-allow-ips", "as `none`"),
    Row("--forwarded-allow-ips", "--forwarded-allow-ips", "also networks, and `unix`"),
    Row("--root-path", "--root-path"),
    Row("--server-header, --no-server-header", NOTHING, _ALWAYS),
    Row("--date-header, --no-date-header", NOTHING, _ALWAYS),
    Row("--header, headers", NOTHING, "use a WSGI middleware, or the proxy in front"),
    Row(
        "--limit-concurrency",
        "--max-connections",
        "new connections wait, where uvicorn answers 503; `--timeout-queue` answers 503",
    ),
    Row("--limit-max-requests", "--max-requests"),
    Row("--limit-max-requests-jitter", "--max-requests-jitter"),
    Row("--timeout-keep-alive", "--timeout-keep-alive", "75 s where uvicorn has 5 s"),
    Row("--timeout-graceful-shutdown", "--timeout-graceful"),
    Row("--timeout-worker-healthcheck", "--timeout-worker"),
    Row(
        "--ssl-keyfile, --ssl-certfile, --ssl-keyfile-password, --ssl-version, --ssl-cert-reqs, "
        "--ssl-ca-certs, --ssl-ciphers",
        NOTHING,
        TLS,
    ),
]
