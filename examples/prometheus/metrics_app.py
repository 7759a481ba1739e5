"""An application that counts its requests, with metrics of all workers together at /metrics.

    export PROMETHEUS_MULTIPROC_DIR=$(mktemp -d)
    picowsgi --workers 4 --hooks metrics_hooks metrics_app:app

It needs prometheus_client, which keeps the numbers of each process in a file of that directory.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, multiprocess

requests = Counter("requests", "Requests that were served", ["path"])
workers = Gauge("workers", "Workers that serve", multiprocess_mode="livesum")
workers.set(1)


def app(environ, start_response):
    if environ["PATH_INFO"] == "/metrics":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        body = generate_latest(registry)
    else:
        requests.labels(environ["PATH_INFO"]).inc()
        body = b"Hello!\n"
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [body]
