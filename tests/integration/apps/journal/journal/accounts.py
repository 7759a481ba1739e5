"""Users register, log in and log out."""

import functools
import sqlite3

from flask import (
    Blueprint,
    abort,
    flash,
    g,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from werkzeug.security import check_password_hash, generate_password_hash

from journal.database import database

blueprint = Blueprint("accounts", __name__)


@blueprint.before_app_request
def find_person():
    number = session.get("person")
    g.person = None
    if number is not None:
        g.person = database().execute("SELECT * FROM person WHERE id = ?", (number,)).fetchone()


def for_members(view):
    @functools.wraps(view)
    def checked(**arguments):
        if g.person is None:
            return redirect(url_for("accounts.log_in"))
        return view(**arguments)

    return checked


@blueprint.route("/register", methods=("GET", "POST"))
def register():
    if request.method == "POST":
        name, password = request.form["name"].strip(), request.form["password"]
        if not name or not password:
            abort(400, "a name and a password, please")
        try:
            with database() as opened:
                opened.execute(
                    "INSERT INTO person (name, password) VALUES (?, ?)",
                    (name, generate_password_hash(password, "pbkdf2:sha256:1000")),
                )
        except sqlite3.IntegrityError:
            flash(f"{name} is taken.")
        else:
            return redirect(url_for("accounts.log_in"))
    return render_template("account.html", title="Register")


@blueprint.route("/login", methods=("GET", "POST"))
def log_in():
    if request.method == "POST":
        found = (
            database()
            .execute("SELECT * FROM person WHERE name = ?", (request.form["name"],))
            .fetchone()
        )
        if found and check_password_hash(found["password"], request.form["password"]):
            session.clear()
            session["person"] = found["id"]
            return redirect(url_for("entries.overview"))
        flash("There is no user with that name and password.")
    return render_template("account.html", title="Log in")


@blueprint.post("/logout")
def log_out():
    session.clear()
    return redirect(url_for("entries.overview"))
