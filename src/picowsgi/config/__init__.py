"""The options: their table, and how their values are found, checked and shown.

Opens nothing and needs no core; may import `system` and what is below it.
"""
