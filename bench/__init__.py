"""Compares WSGI servers on one machine. See bench/README.md."""
