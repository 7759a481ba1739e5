"""The processes of a server: how they start, watch each other, replace each other, and end.

May import `threads`, `reload` and the packages below them.
"""
