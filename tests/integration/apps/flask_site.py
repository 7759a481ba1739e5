"""A Flask application that uses most features of Flask, for a comparison with its test client."""

from __future__ import annotations

import io
from pathlib import Path

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    flash,
    get_flashed_messages,
    jsonify,
    make_response,
    redirect,
    render_template_string,
    request,
    send_file,
    session,
    stream_with_context,
    url_for,
)
from werkzeug.exceptions import HTTPException

PAGE = """<!doctype html><title>{{ title }}</title>
{% for message in messages %}<p class="flash">{{ message }}</p>{% endfor %}
<h1>{{ title }}</h1><a href="{{ url_for('shop.article', number=7) }}">seven</a>"""


pages = Blueprint("pages", __name__)
shop = Blueprint("shop", __name__)


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.update(SECRET_KEY="only for the tests", MAX_CONTENT_LENGTH=1 << 20)
    app.register_blueprint(pages)
    app.register_blueprint(shop, url_prefix="/shop")

    @app.errorhandler(404)
    def not_found(error):
        return render_template_string("nothing at {{ request.path }}"), 404

    @app.errorhandler(OverflowError)
    def overflow(error):
        return jsonify(error=type(error).__name__), 503, {"Retry-After": "120"}

    @app.errorhandler(HTTPException)
    def http_error(error):
        return jsonify(code=error.code, name=error.name), error.code, error.get_headers()[1:]

    @app.before_request
    def before():
        request.environ["test.before"] = request.path

    @app.after_request
    def after(answer):
        answer.headers["X-Before"] = str(request.environ["test.before"] == request.path)
        return answer

    return app


@pages.get("/")
def index():
    return render_template_string(PAGE, title="Welcome é €", messages=get_flashed_messages())


@pages.get("/greet/<name>")
def greet(name):
    return f"Hello {name}"


@pages.get("/path/<path:rest>")
def path(rest):
    return jsonify(rest=rest, path=request.path, full=request.full_path, root=request.root_path)


@pages.get("/args")
def args():
    return jsonify(sorted(request.args.items(multi=True)))


@pages.route("/fields", methods=["GET", "POST"])
def fields():
    wanted = ("X-One", "X-Two", "Accept", "Accept-Language", "Referer", "Authorization")
    seen = {name: request.headers.get(name) for name in wanted}
    seen["best"] = request.accept_languages.best_match(["de", "en"])
    return jsonify(seen)


@pages.get("/about-me")
def about_me():
    return jsonify(
        method=request.method,
        scheme=request.scheme,
        host=request.host,
        url=request.url,
        base=request.base_url,
        secure=request.is_secure,
        external=url_for("pages.index", _external=True),
    )


@pages.post("/form")
def form():
    return jsonify(sorted(request.form.items(multi=True)))


@pages.post("/upload")
def upload():
    file = request.files["file"]
    data = file.read()
    return jsonify(name=file.filename, type=file.mimetype, size=len(data), rest=request.form)


@pages.post("/json")
def as_json():
    return jsonify(got=request.get_json())


@pages.route("/raw", methods=["POST", "PUT", "PATCH", "DELETE"])
def raw():
    return Response(request.get_data(), mimetype="application/octet-stream")


@pages.route("/login", methods=["GET", "POST"])
def login():
    if request.method == "POST":
        session["user"] = request.form["user"]
        session.permanent = "stay" in request.form
        flash(f"welcome, {session['user']}")
        return redirect(url_for("pages.index"))
    return "<form method=post><input name=user></form>"


@pages.get("/me")
def me():
    if "user" not in session:
        abort(401, "log in first")
    session["visits"] = session.get("visits", 0) + 1
    return jsonify(user=session["user"], visits=session["visits"])


@pages.get("/logout")
def logout():
    session.clear()
    return redirect(url_for("pages.login"), 303)


@pages.get("/cookies")
def cookies():
    answer = make_response(jsonify(request.cookies))
    answer.set_cookie("plain", "value")
    answer.set_cookie("odd", 'a "quoted"; é', path="/cookies", httponly=True, samesite="Lax")
    answer.delete_cookie("old")
    return answer


@pages.get("/redirect/<int:code>")
def redirects(code):
    return redirect("/greet/redirected?é=1", code)


@pages.get("/elsewhere")
def elsewhere():
    return redirect("https://example.test/über", 308)


@pages.get("/folder/")
def folder():
    return "with a slash"


@pages.get("/status/<int:code>")
def status(code):
    return "", code


@pages.get("/stream")
def stream():
    def rows():
        for number in range(2_000):
            yield f"{number},{request.args.get('word', '')}\n"

    return Response(stream_with_context(rows()), mimetype="text/csv")


@pages.get("/stream-with-length")
def stream_with_length():
    pieces = [b"12345", b"", b"6789"]
    return Response((piece for piece in pieces), headers={"Content-Length": "9"})


@pages.get("/file")
def file():
    return send_file(Path(__file__), mimetype="text/x-python", max_age=60)


@pages.get("/download")
def download():
    content = io.BytesIO(bytes(range(256)) * 1000)
    return send_file(content, download_name="dåta.bin", as_attachment=True, etag="0123")


@pages.get("/etag")
def etag():
    answer = make_response("tagged")
    answer.set_etag("abc")
    return answer.make_conditional(request)


@pages.get("/several-fields")
def several_fields():
    fields = [("X-Many", "1"), ("Link", "</a>; rel=x"), ("X-Many", "2"), ("X-Latin", "caf\xe9")]
    return "several", 200, fields


@pages.get("/own-reason")
def own_reason():
    return Response("odd", status="299 Strange But True")


@pages.get("/broken")
def broken():
    raise ZeroDivisionError("as the test wants it")


@pages.get("/broken-by-value")
def broken_by_value():
    raise OverflowError("as the test wants it")


@pages.get("/large")
def large():
    return Response(b"0123456789" * 300_000, mimetype="text/plain")


@shop.get("/")
def articles():
    return jsonify([url_for(".article", number=number) for number in range(3)])


@shop.get("/article/<int:number>")
def article(number):
    if number > 100:
        abort(410)
    return render_template_string("<p>article {{ number }}</p>", number=number)


@shop.errorhandler(410)
def gone(error):
    return "no longer sold", 410
