"""A Flask application with WebSocket routes of flask-sock, and Flask-SocketIO beside them."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress

from flask import Flask, request
from flask_sock import Sock
from flask_socketio import SocketIO, emit

PAGE = """<!doctype html><title>sockets</title><p id="log">begun</p>
<script>
const log = document.getElementById("log");
const add = text => { log.textContent += "|" + text; };
const socket = new WebSocket(location.origin.replace("http", "ws") + "/echo");
socket.binaryType = "arraybuffer";
socket.onopen = () => { socket.send("text \\u00e9"); };
socket.onclose = event => add("closed " + event.code + " " + event.reason);
socket.onmessage = event => {
  if (typeof event.data === "string" && event.data.length < 100) {
    add(event.data);
    socket.send(new Uint8Array([0, 255, 10]).buffer);
  } else if (typeof event.data !== "string") {
    add("bytes " + new Uint8Array(event.data).join(" "));
    socket.send("x".repeat(200000));
  } else {
    add("large " + event.data.length);
    socket.send("close");
  }
};
</script>"""

app = Flask(__name__)
app.config["SOCK_SERVER_OPTIONS"] = {"max_message_size": 1 << 22}
sock = Sock(app)
socketio = SocketIO(app, async_mode="threading")


@app.get("/")
def page():
    return PAGE


@app.get("/pid")
def pid():
    return str(os.getpid())


@sock.route("/echo")
def echo(ws):
    while True:
        message = ws.receive()
        if message == "close":
            ws.close(4001, "as you like")
        ws.send(message)


@sock.route("/pid-of-socket")
def pid_of_socket(ws):
    ws.send(str(os.getpid()))
    ws.receive()


@sock.route("/thread")
def thread(ws):
    ws.send(threading.current_thread().name)
    ws.receive()


@sock.route("/ticks")
def ticks(ws):
    with suppress(OSError):  # the thread of simple-websocket closes the socket at any time
        while True:
            ws.send("tick")
            time.sleep(0.01)


@sock.route("/fail-first")
def fail_first(ws):
    raise RuntimeError("after the handshake")


@app.get("/fail-before", websocket=True)
def fail_before():
    raise RuntimeError("before the handshake")


@socketio.on("say")
def say(word):
    emit("said", [word, request.environ["REQUEST_METHOD"]])
