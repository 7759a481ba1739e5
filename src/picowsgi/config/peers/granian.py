"""The options of granian and their equivalents: data only."""

from __future__ import annotations

from picowsgi.config.peers.row import DEFAULT, HTTP_ONLY, NOTHING, TLS, TUNING, WSGI_ONLY, Row

ROWS = [
    Row("--host, --address", "--host"),
    Row("--port", "--port"),
    Row("--uds", "--bind", "as `unix:PATH`"),
    Row("--uds-permissions", "--unix-socket-mode"),
    Row("--interface", DEFAULT, WSGI_ONLY),
    Row("--http", DEFAULT, HTTP_ONLY),
    Row("--ws, --no-ws, websockets", DEFAULT, "see [WebSocket](websocket.md)"),
    Row("--workers", "--workers"),
    Row("--blocking-threads", "--threads", "the server starts threads when it needs them"),
    Row("--blocking-threads-idle-timeout", DEFAULT, TUNING),
    Row("--runtime-threads", "--loops"),
    Row(
        "--runtime-blocking-threads, --runtime-mode, --loop, --task-impl, --http1-buffer-size, "
        "--http1-pipeline-flush, --no-http1-pipeline-flush",
        NOTHING,
        TUNING,
    ),
    Row("--backlog", "--backlog"),
    Row(
        "--backpressure",
        "--threads",
        "this many requests run at a time; `--timeout-queue` limits how long the others wait",
    ),
    Row("--http1-header-read-timeout", "--timeout-head"),
    Row("--http1-keep-alive, --no-http1-keep-alive", "--timeout-keep-alive"),
    Row(
        "--http2-adaptive-window, --no-http2-adaptive-window, "
        "--http2-initial-connection-window-size, --http2-initial-stream-window-size, "
        "--http2-keep-alive-interval, --http2-keep-alive-timeout, --http2-max-concurrent-streams, "
        "--http2-max-frame-size, --http2-max-headers-size, --http2-max-send-buffer-size",
        NOTHING,
        HTTP_ONLY,
    ),
    Row("--log, --no-log, log_enabled", "--log-level"),
    Row("--log-level", "--log-level"),
    Row("--log-config", "--log-config"),
    Row("--access-log, --no-access-log, log_access", "--access-log, --no-access-log"),
    Row("--access-log-fmt, log_access_format", "--access-log-format", "with gunicorn's atoms"),
    Row(
        "--ssl-certificate, --ssl-keyfile, --ssl-keyfile-password, --ssl-protocol-min, --ssl-ca, "
        "--ssl-crl, --ssl-client-verify, --no-ssl-client-verify, ssl_cert, ssl_key",
        NOTHING,
        TLS,
    ),
    Row("--url-path-prefix", "--root-path"),
    Row(
        "--respawn-failed-workers, --no-respawn-failed-workers, --respawn-interval",
        DEFAULT,
        "the supervisor replaces a worker that has crashed",
    ),
    Row("--workers-lifetime", "--max-requests", "a number of requests, not a time"),
    Row("--workers-max-rss", "--max-worker-rss", "with a unit: `512M`"),
    Row("--rss-sample-interval, --rss-samples", DEFAULT, TUNING),
    Row("--workers-kill-timeout", "--timeout-graceful"),
    Row("--factory, --no-factory", "--factory, --no-factory"),
    Row("--working-dir", "--chdir"),
    Row("--env-files", "--env-file", "variables that are set already keep their values"),
    Row("--static-path-route, --static-path-mount", "--static", "as `URL=DIR`"),
    Row("--static-path-dir-to-file", DEFAULT, "a directory is its `index.html`"),
    Row("--static-path-expires", NOTHING, "use WhiteNoise in the application, or the proxy"),
    Row("--metrics-address, --metrics-port", "--metrics", "as `HOST:PORT`"),
    Row("--no-metrics, --metrics-scrape-interval", DEFAULT, TUNING),
    Row("--metrics", "--metrics", "with an address"),
    Row("--reload, --no-reload", "--reload, --no-reload"),
    Row("--reload-paths", "--reload-dir"),
    Row(
        "--reload-ignore-dirs, --reload-ignore-patterns, --reload-ignore-paths",
        "--reload-exclude",
        "patterns of files and directories",
    ),
    Row("--reload-tick", DEFAULT, "the server looks for changes as often as it can afford"),
    Row(
        "--reload-ignore-worker-failure, --no-reload-ignore-worker-failure",
        DEFAULT,
        "the terminal and the browser show the error until the next change",
    ),
    Row("--process-name", NOTHING, "`picowsgi` and APP are in the command line of `ps`"),
    Row("--pid-file", "--pid"),
]
