"""Changes a Content-Security-Policy (CSP level 3) so that it allows one script and one endpoint.

Never allows more, and never changes the effect of a policy on other parts of the page.
"""

from __future__ import annotations

import re

_SCRIPT = ("script-src-elem", "script-src", "default-src")
_CONNECT = ("connect-src", "default-src")
_EVERYTHING = "'unsafe-inline'"
#: With one of these, browsers ignore 'unsafe-inline' for scripts.
_STRICT = re.compile(r"'(nonce-.+|sha(256|384|512)-.+|strict-dynamic)'", re.IGNORECASE)
# A host that a policy cannot name, such as the address [::1], or a header that is not one.
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?")

_Directives = dict[str, list[str]]


def allow(policies: str, script: str, host: str, path: str) -> str | None:
    """Return the value of the header with `script`, a hash, and the endpoint allowed.

    The endpoint is `path` on `host`, the value of the header Host. Returns None if the policy
    forbids all scripts (`sandbox`).
    """
    changed = []
    for policy in policies.split(","):
        directives = _parse(policy)
        sandbox = directives.get("sandbox")
        if sandbox is not None and "allow-scripts" not in map(str.lower, sandbox):
            return None
        _allow_script(directives, script)
        _allow_endpoint(directives, host, path)
        changed.append("; ".join(" ".join((name, *values)) for name, values in directives.items()))
    return ", ".join(changed)


def _parse(policy: str) -> _Directives:
    directives: _Directives = {}
    for text in policy.split(";"):
        name, *values = text.split() or [""]
        if name:
            directives.setdefault(name.lower(), values)  # browsers ignore a repetition
    return directives


def _effective(directives: _Directives, names: tuple[str, ...]) -> list[str] | None:
    """Return the sources of the directive that applies; None: everything is allowed."""
    return next((directives[name] for name in names if name in directives), None)


def _allow_script(directives: _Directives, script: str) -> None:
    sources = _effective(directives, _SCRIPT)
    if sources is None:
        return
    allows_inline = _EVERYTHING in map(str.lower, sources)
    if not allows_inline or any(map(_STRICT.fullmatch, sources)):
        directives["script-src-elem"] = _add(sources, script)


def _allow_endpoint(directives: _Directives, host: str, path: str) -> None:
    sources = _effective(directives, _CONNECT)
    if sources is None or "'self'" in map(str.lower, sources):
        return
    sockets = ("ws:", "wss:")
    if _HOST.fullmatch(host):
        # A source without a scheme is for the scheme of the page, so not for WebSocket.
        own = [f"{scheme}//{host}{path}" for scheme in sockets]
        directives["connect-src"] = _add(sources, f"{host}{path}", *own)
    else:
        directives["connect-src"] = _add(sources, "'self'")


def _add(sources: list[str], *more: str) -> list[str]:
    return [one for one in sources if one.lower() != "'none'"] + list(more)
