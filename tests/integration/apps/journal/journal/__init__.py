"""A blog: users register, log in, and write, edit and delete entries of their own."""

import os
import threading
import time
from pathlib import Path

from flask import Flask, request

from journal import accounts, database, entries

MOTTO = "What happened today"

both_are_here = threading.Barrier(2)


def create_app(motto=MOTTO):
    app = Flask(__name__, instance_path=os.environ["JOURNAL_FOLDER"])
    app.config.update(SECRET_KEY="not a secret", MOTTO=motto)
    app.teardown_appcontext(database.close)
    app.cli.add_command(database.create)
    app.register_blueprint(accounts.blueprint)
    app.register_blueprint(entries.blueprint)

    @app.get("/server")
    def server():
        return {
            "software": request.environ["SERVER_SOFTWARE"],
            "threads": request.environ["wsgi.multithread"],
            "debug": app.debug,
        }

    @app.get("/meet")
    def meet():
        """Return when two requests are here at the same time."""
        try:
            both_are_here.wait(request.args.get("timeout", 10, float))
        except threading.BrokenBarrierError:
            both_are_here.reset()
            return {"met": False}
        return {"met": True}

    @app.get("/hold")
    def hold():
        """Return when the file `release` exists."""
        folder = Path(app.instance_path)
        (folder / "held").touch()
        while not (folder / "release").exists():
            time.sleep(0.01)
        return {"held": True}

    return app
