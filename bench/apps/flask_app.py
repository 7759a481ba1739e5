"""The Flask application of the scenarios: a small JSON response, like that of a web API."""

from __future__ import annotations

from typing import Any

from flask import Flask, request

app = Flask(__name__)


@app.get("/users/<int:number>")
def user(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "name": "Ada Lovelace",
        "roles": ["reader", "author"],
        "page": request.args.get("page", 1, type=int),
    }
