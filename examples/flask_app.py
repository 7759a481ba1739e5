"""A guest book with Flask: a page, a form, a redirect, and the same as JSON.

It needs Flask (`pip install flask`), and then one command:

    picowsgi examples/flask_app.py

    curl http://127.0.0.1:8000/
    curl -L -d 'name=Ada' -d 'text=Good evening' http://127.0.0.1:8000/sign
    curl http://127.0.0.1:8000/entries.json
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask, abort, jsonify, redirect, render_template_string, request, url_for

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

PAGE = """<!doctype html>
<html lang="en">
<title>Guest book</title>
<style>body { font: 1.1rem/1.6 system-ui; max-width: 36rem; margin: 3rem auto }</style>
<h1>Guest book</h1>
{% for entry in entries %}
<p><b>{{ entry.name }}</b>: {{ entry.text }}</p>
{% else %}
<p>There are no entries yet.</p>
{% endfor %}
<form method="post" action="{{ url_for('sign') }}">
  <p><input name="name" placeholder="Your name" required>
     <input name="text" placeholder="A few words" required>
     <button>Sign</button></p>
</form>
</html>
"""

app = Flask(__name__)
entries: list[dict[str, str]] = []


@app.get("/")
def index() -> ResponseReturnValue:
    return render_template_string(PAGE, entries=entries)


@app.post("/sign")
def sign() -> ResponseReturnValue:
    name, text = request.form.get("name", "").strip(), request.form.get("text", "").strip()
    if not (name and text):
        abort(400, "a name and a few words, please")
    entries.append({"name": name, "text": text})
    return redirect(url_for("index"), code=303)


@app.get("/entries.json")
def entries_as_json() -> ResponseReturnValue:
    return jsonify(entries)
