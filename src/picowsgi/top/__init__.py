"""`picowsgi top`: what a running server does, from its page of metrics.

A sample goes through the modules in this order: `fetch`, `page`, `view`, `monitor`, `draw`, and
`display` or standard output. May import `config`, `system` and the packages below them.
"""
