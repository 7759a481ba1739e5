"""The entries: all visitors can read them, and only their authors can change them."""

from flask import Blueprint, abort, current_app, g, redirect, render_template, request, url_for

from journal.accounts import for_members
from journal.database import database

blueprint = Blueprint("entries", __name__)


@blueprint.get("/")
def overview():
    entries = (
        database()
        .execute(
            "SELECT entry.*, person.name FROM entry JOIN person ON person.id = author "
            "ORDER BY entry.id DESC"
        )
        .fetchall()
    )
    return render_template("overview.html", title=current_app.config["MOTTO"], entries=entries)


def own_entry(number):
    entry = database().execute("SELECT * FROM entry WHERE id = ?", (number,)).fetchone()
    if entry is None:
        abort(404)
    if entry["author"] != g.person["id"]:
        abort(403)
    return entry


@blueprint.route("/new", methods=("GET", "POST"))
@for_members
def create():
    if request.method == "POST":
        with database() as opened:
            opened.execute(
                "INSERT INTO entry (author, title, text) VALUES (?, ?, ?)",
                (g.person["id"], request.form["title"], request.form["text"]),
            )
        return redirect(url_for("entries.overview"))
    return render_template("entry.html", title="New entry", entry=None)


@blueprint.route("/<int:number>/edit", methods=("GET", "POST"))
@for_members
def edit(number):
    entry = own_entry(number)
    if request.method == "POST":
        with database() as opened:
            opened.execute(
                "UPDATE entry SET title = ?, text = ? WHERE id = ?",
                (request.form["title"], request.form["text"], number),
            )
        return redirect(url_for("entries.overview"))
    return render_template("entry.html", title="Edit", entry=entry)


@blueprint.post("/<int:number>/delete")
@for_members
def delete(number):
    own_entry(number)
    with database() as opened:
        opened.execute("DELETE FROM entry WHERE id = ?", (number,))
    return redirect(url_for("entries.overview"))


@blueprint.get("/broken")
def broken():
    wanted = {"answer": 42}
    return wanted["question"]
