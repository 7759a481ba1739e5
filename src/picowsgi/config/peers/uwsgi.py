"""The options of uWSGI and their equivalents: data only."""

from __future__ import annotations

from picowsgi.config.peers.row import ARGUMENT, DEFAULT, NOTHING, TLS, TUNING, Row

_HTTP = "picowsgi supports HTTP only: in nginx, write `proxy_pass` instead of `uwsgi_pass`"
_SYSTEMD = "use systemd's services, templates and timers"

ROWS = [
    Row(
        "http-socket, http, http11-socket",
        "--bind",
        "picowsgi has no router process in front of the workers",
    ),
    Row(
        "http-websockets",
        DEFAULT,
        "Flask-Sock and Flask-SocketIO [work](websocket.md); `uwsgi.websocket_handshake` and the "
        "like are not there",
    ),
    Row("http-keepalive, http11", "--timeout-keep-alive", "connections stay open by default"),
    Row("https, https-socket, https2, ssl-verbose, sni, sni-dir", NOTHING, TLS),
    Row(
        "-s, socket, uwsgi-socket, protocol, socket-protocol, fastcgi-socket, scgi-socket",
        NOTHING,
        _HTTP,
    ),
    Row(
        "enable-proxy-protocol, enable-proxy-protocol2",
        "--proxy-protocol",
        "versions 1 and 2, from [trusted proxies](deployment.md#the-proxy-protocol) only",
    ),
    Row("chmod-socket, chmod, -C", "--unix-socket-mode"),
    Row("chown-socket", "--unix-socket-group", "`--user` owns the socket"),
    Row("abstract-socket, freebind, reuse-port", NOTHING, "use `fd://N` and systemd's sockets"),
    Row("-l, listen", "--backlog"),
    Row("module, wsgi, wsgi-file, file, callable", ARGUMENT, "`mysite:app`, or `mysite.py`"),
    Row("paste, ini-paste, ini-paste-logged", ARGUMENT, "`picowsgi development.ini`"),
    Row("pythonpath, python-path, pp", "--app-dir"),
    Row("-H, home, virtualenv, venv, pyhome", NOTHING, "run the `picowsgi` of that environment"),
    Row("env", "--env-file", "or `env NAME=VALUE picowsgi`"),
    Row("for-readline, envdir", "--env-file"),
    Row("ini, xml, yaml, yml, json", "--config", "a TOML file"),
    Row("mount", "--mount", "always works as with `manage-script-name`"),
    Row("manage-script-name", DEFAULT),
    Row("processes, workers", "--workers"),
    Row("threads", "--threads"),
    Row("-T, enable-threads", DEFAULT),
    Row("async, gevent, ugreen, asyncio, greenlet", NOTHING, "the server uses threads"),
    Row("-M, master", NOTHING, "picowsgi starts a supervisor when the options need one"),
    Row("lazy-apps, lazy", DEFAULT, "`--preload` is the opposite"),
    Row("-i, single-interpreter, need-app", DEFAULT, "an application must be importable"),
    Row("-R, max-requests", "--max-requests"),
    Row("max-requests-delta", "--max-requests-jitter"),
    Row("max-worker-lifetime", "--max-requests", "a number of requests, not a time"),
    Row(
        "reload-on-rss, evil-reload-on-rss, reload-on-as, evil-reload-on-as",
        "--max-worker-rss",
        "a limit for a worker, with a unit: `512M`",
    ),
    Row(
        "harakiri",
        "--timeout-request",
        "raises an exception in the application; the process is replaced only if the request "
        "continues; uWSGI's `-t` is this option, and picowsgi's `-t` is `--threads`",
    ),
    Row("harakiri-verbose", DEFAULT, "the log has the stack of the request"),
    Row("-z, socket-timeout, http-timeout", "--timeout-body, --timeout-write"),
    Row("so-send-timeout, socket-send-timeout, so-write-timeout", "--timeout-write"),
    Row("http-headers-timeout", "--timeout-head"),
    Row("worker-reload-mercy, reload-mercy", "--timeout-graceful"),
    Row("die-on-term", DEFAULT),
    Row("no-orphans", DEFAULT, "a worker ends with its supervisor"),
    Row(
        "buffer-size",
        "--max-head-size",
        "uWSGI's `-b` is this option, and picowsgi's `-b` is `--bind`",
    ),
    Row("max-vars, vars-size", "--max-fields"),
    Row("limit-post", "--max-body-size"),
    Row(
        "post-buffering, post-buffering-bufsize",
        "--body-memory",
        "the server always receives the whole body before it calls the application",
    ),
    Row("static-map, static-map2, check-static", "--static"),
    Row("static-index", DEFAULT, "a directory is its `index.html`"),
    Row("py-autoreload, python-autoreload, py-auto-reload, fs-reload", "--reload"),
    Row("py-autoreload-ignore, py-auto-reload-ignore", "--reload-exclude"),
    Row("touch-reload, touch-workers-reload, touch-chain-reload", NOTHING, "send SIGHUP"),
    Row("touch-logreopen, touch-logrotate", NOTHING, "send SIGUSR1"),
    Row("catch-exceptions", "--debug"),
    Row("uid", "--user"),
    Row("gid", "--group"),
    Row("chdir, chdir2", "--chdir"),
    Row("pidfile, pidfile2, safe-pidfile", "--pid"),
    Row("stop", NOTHING, "send SIGTERM to the process of `--pid`"),
    Row("procname, auto-procname, procname-prefix", NOTHING, "see the command line of `ps`"),
    Row("max-fd", "--max-connections", "the server raises the limit of descriptors itself"),
    Row("logto, logto2", "--error-log"),
    Row("req-logger, logger-req", "--access-log-file"),
    Row(
        "log-format, logformat",
        "--access-log-format",
        "with gunicorn's atoms; `%(uuid)` is `%(I)s`, the ID of the request (`--request-id`)",
    ),
    Row(
        "logger, log-syslog, log-socket",
        "--log-config",
        "with [a `SysLogHandler`](operation.md#syslog-and-other-handlers)",
    ),
    Row("log-slow", "--access-log-slow"),
    Row("-L, disable-logging", "--no-access-log"),
    Row(
        "stats, stats-server, stats-http, stats-push, carbon, metrics-dir, enable-metrics",
        "--metrics",
        "[metrics for Prometheus](operation.md#metrics), of all workers together",
    ),
    Row(
        "cheaper, cheaper-initial, cheaper-algo",
        NOTHING,
        "the server starts threads when it needs them; SIGTTIN and SIGTTOU change the number of "
        "workers",
    ),
    Row("-d, daemonize, daemonize2, emperor, attach-daemon, cron", NOTHING, _SYSTEMD),
    Row("hook-post-app, @postfork", "--hooks", "`worker_start`"),
    Row("hook-as-user-atexit, atexit", "--hooks", "`worker_stop`, `on_stop`"),
    Row(
        "spooler, cache, cache2, mule, mules, queue",
        NOTHING,
        "use separate programs for a queue and a cache",
    ),
    Row("plugin, plugins", NOTHING, "picowsgi supports WSGI only"),
    Row("thunder-lock, offload-threads, memory-report, vacuum, strict", DEFAULT, TUNING),
]
