"""The pages of picowsgi itself, as WSGI applications or parts of one.

They import only `log` and `errors`.
"""
