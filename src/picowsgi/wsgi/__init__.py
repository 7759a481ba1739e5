"""The way of one request: from the core's block to an environ, through the application, and back.

May import `core` and the packages below it, and the pages of `app`.
"""
