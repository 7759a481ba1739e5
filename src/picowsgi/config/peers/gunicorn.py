"""The options of gunicorn and their equivalents: data only."""

from __future__ import annotations

from picowsgi.config.peers.row import ARGUMENT, DEFAULT, HTTP_ONLY, NOTHING, TLS, WSGI_ONLY, Row

_HOOKS = "all [hooks](operation.md#hooks) are functions of one module"
_STRICT = "the server refuses requests that two programs could read in two ways"

ROWS = [
    Row("-b, --bind, bind", "--bind", "the same forms of addresses"),
    Row("--backlog", "--backlog"),
    Row("-w, --workers", "--workers", "also `auto`, and the variable `WEB_CONCURRENCY`"),
    Row(
        "--threads",
        "--threads",
        "the default is 16, gunicorn's is 1; the server starts threads when it needs them",
    ),
    Row(
        "-k, --worker-class",
        NOTHING,
        "one kind of worker replaces sync and gthread, and slow clients hold no thread; "
        "picowsgi refuses a process that gevent or eventlet has monkey-patched",
    ),
    Row("--worker-connections", "--max-connections"),
    Row("--max-requests", "--max-requests"),
    Row("--max-requests-jitter", "--max-requests-jitter"),
    Row(
        "--timeout",
        "--timeout-worker",
        "for a worker that sends no heartbeat; `--timeout-request` is the limit for one request; "
        "gunicorn's `-t` is this option, and picowsgi's `-t` is `--threads`",
    ),
    Row("--graceful-timeout", "--timeout-graceful", "`--drain-delay` comes before it"),
    Row(
        "--keep-alive, keepalive",
        "--timeout-keep-alive",
        "75 s where gunicorn has 2 s: an idle connection holds no thread",
    ),
    Row(
        "--limit-request-line, --limit-request-field_size",
        "--max-head-size",
        "one limit for the request line and all headers",
    ),
    Row("--limit-request-fields", "--max-fields"),
    Row("--header-map", "--underscore-fields", "`dangerous` is called `allow`"),
    Row("--forwarder-headers", "--underscore-fields", "`allow` is for all headers"),
    Row(
        "--permit-obsolete-folding, --strip-header-spaces, --permit-unconventional-http-method, "
        "--permit-unconventional-http-version, --casefold-http-method",
        NOTHING,
        _STRICT,
    ),
    Row("--http-parser", NOTHING, "there is one parser, in C"),
    Row("--protocol, --uwsgi-allow-from, uwsgi_allow_ips", NOTHING, "picowsgi supports HTTP only"),
    Row(
        "--http-protocols, --http2-cleartext, --http2-max-concurrent-streams, "
        "--http2-initial-window-size, --http2-max-frame-size, --http2-max-header-list-size",
        NOTHING,
        HTTP_ONLY,
    ),
    Row(
        "--asgi-loop, --asgi-lifespan, --asgi-disconnect-grace-period, "
        "--websocket-max-message-size",
        NOTHING,
        WSGI_ONLY,
    ),
    Row("--reload", "--reload"),
    Row("--reload-engine", DEFAULT, "`picowsgi[reload]` installs the reports of the system"),
    Row("--reload-extra-file, reload_extra_files", "--reload-include", "patterns, not names"),
    Row("--spew", NOTHING, "use a debugger or `python -m trace`"),
    Row("--check-config, --print-config", "--check"),
    Row("--preload, preload_app", "--preload"),
    Row("--no-sendfile, sendfile", NOTHING, "the server always sends files without a copy"),
    Row("--reuse-port", NOTHING, "the worker processes share one socket: use `--workers`"),
    Row("--chdir", "--chdir"),
    Row("-p, --pid, pidfile", "--pid"),
    Row("-u, --user", "--user"),
    Row("-g, --group", "--group"),
    Row("-m, --umask", "--umask"),
    Row("--initgroups", DEFAULT, "`--user` sets all groups of the user"),
    Row("-e, --env, raw_env", "--env-file", "or `env NAME=VALUE picowsgi`"),
    Row("-D, --daemon", NOTHING, "use systemd or another service manager"),
    Row("--worker-tmp-dir", NOTHING, "a heartbeat is no file"),
    Row("tmp_upload_dir", NOTHING, "the variable `TMPDIR` names the directory"),
    Row(
        "--access-logfile, accesslog",
        "--access-log, --access-log-file",
        "`-` is standard output",
    ),
    Row(
        "--access-logformat",
        "--access-log-format",
        "with the same atoms, and `%(I)s` for the ID of the request (`--request-id`)",
    ),
    Row("--log-level, loglevel", "--log-level"),
    Row(
        "--log-config, logconfig, --log-config-json, logconfig_json, logconfig_dict",
        "--log-config",
        "a TOML or JSON file for `dictConfig`, not INI",
    ),
    Row(
        "--error-logfile, --log-file, errorlog",
        "--error-log",
        "`-` is standard error; the output of the application itself stays on standard error",
    ),
    Row(
        "--capture-output, -R, --enable-stdio-inheritance",
        NOTHING,
        "the output of the application stays on standard output and standard error",
    ),
    Row("--logger-class", "--log-config"),
    Row(
        "--log-syslog, syslog, --log-syslog-to, syslog_addr, --log-syslog-prefix, syslog_prefix, "
        "--log-syslog-facility, syslog_facility, --disable-redirect-access-to-syslog",
        "--log-config",
        "with [a `SysLogHandler`](operation.md#syslog-and-other-handlers)",
    ),
    Row("-c, --config", "--config", "a TOML file, not Python"),
    Row("--pythonpath", "--app-dir", "repeatable, without commas"),
    Row(
        "--paste, --paster",
        ARGUMENT,
        "`picowsgi development.ini`, as the page [Pyramid and Zope](pastedeploy.md) describes",
    ),
    Row("--paste-global, raw_paste_global_conf", NOTHING, "write the value into `[DEFAULT]`"),
    Row("wsgi_app", "--app", "the argument APP"),
    Row("-n, --name, proc_name", NOTHING, "`picowsgi` and APP are in the command line of `ps`"),
    Row(
        "--forwarded-allow-ips",
        "--forwarded-allow-ips",
        "also sets the client's address and host, "
        "[not only the scheme](deployment.md#trusted-proxies); unix sockets need `unix` in the "
        "list",
    ),
    Row("secure_scheme_headers", NOTHING, "`X-Forwarded-Proto` and `Forwarded` name the scheme"),
    Row("--root-path, SCRIPT_NAME", "--root-path", "`SCRIPT_NAME` is a variable"),
    Row(
        "--proxy-protocol",
        "--proxy-protocol",
        "versions 1 and 2; [a connection without a header is closed]"
        "(deployment.md#the-proxy-protocol), where gunicorn serves it; `SERVER_NAME` and "
        "`SERVER_PORT` are in place of `PROXY_ADDR` and `PROXY_PORT`",
    ),
    Row(
        "--proxy-allow-from, proxy_allow_ips",
        "--forwarded-allow-ips",
        "one list of trusted proxies",
    ),
    Row(
        "--certfile, --keyfile, --ca-certs, --cert-reqs, --ciphers, --ssl-version, "
        "--do-handshake-on-connect, --suppress-ragged-eofs, ssl_context",
        NOTHING,
        TLS,
    ),
    Row(
        "--statsd-host, --statsd-prefix, --dogstatsd-tags, --enable-backlog-metric",
        "--metrics",
        "[metrics for Prometheus](operation.md#metrics), which reads them; gunicorn sends them "
        "to statsd",
    ),
    Row(
        "--control-socket, --control-socket-mode, --no-control-socket, control_socket_disable",
        NOTHING,
        "send [signals](operation.md#signals), and use `picowsgi top`",
    ),
    Row(
        "--dirty-app, dirty_apps, --dirty-workers, --dirty-timeout, --dirty-threads, "
        "--dirty-graceful-timeout, on_dirty_starting, dirty_post_fork, dirty_worker_init, "
        "dirty_worker_exit",
        NOTHING,
        "use a separate program for a queue of tasks",
    ),
    Row("on_starting, on_exit", "--hooks", f"`on_start` and `on_stop`; {_HOOKS}"),
    Row("on_reload", "--hooks", "`on_reload`, without an argument"),
    Row(
        "post_fork, post_worker_init",
        "--hooks",
        "`worker_start`, after the application is loaded",
    ),
    Row("worker_exit, worker_int, worker_abort", "--hooks", "`worker_stop`, in the worker"),
    Row("child_exit", "--hooks", "`worker_exit`, in the supervisor"),
    Row("pre_request, post_request", NOTHING, "use a WSGI middleware"),
    Row(
        "when_ready, pre_fork, pre_exec, nworkers_changed",
        NOTHING,
        "systemd's notification reports when the server is ready",
    ),
]
