"""Compares WSGI servers on one machine, side by side: see bench/README.md."""
