"""The processes of a server: how they start, watch and replace each other, and end.

May import `threads`, `reload` and what is below them.
"""
