"""The options: their table, and the code that finds, checks and shows their values.

Never opens a socket, and never imports the core. May import `system` and the packages below it.
"""
