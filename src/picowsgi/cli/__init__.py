"""The command line.

May import everything but `contrib` and the public faces.
"""
