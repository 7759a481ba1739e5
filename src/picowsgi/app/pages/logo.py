"""The logo of picowsgi: the letter p around a small core.

Never loads a file: the documentation (docs/hooks.py) and the server's own pages take it from here.
"""

from __future__ import annotations

from urllib.parse import quote

#: It has its own background, so it can be seen on a light page and on a dark page.
SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" role="img">
<title>picowsgi</title>
<rect width="64" height="64" rx="14" fill="#0b6e4f"/>
<path d="M19 52V14h14a13 13 0 0 1 0 26H19" fill="none" stroke="#fff" stroke-width="7"
 stroke-linecap="round" stroke-linejoin="round"/>
<circle cx="33" cy="27" r="5" fill="#7fe0bb"/>
</svg>
"""

#: The logo as an address, for a page that loads nothing else.
ADDRESS = f"data:image/svg+xml,{quote(SVG)}"
