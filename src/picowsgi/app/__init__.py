"""The application: how it is found by its name, what is put around it, and pages of our own.

May import `core`, `config` and what is below them, and nothing that serves.
"""
