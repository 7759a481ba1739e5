"""Integrations of picowsgi with other programs. Each module needs the program of its name."""
