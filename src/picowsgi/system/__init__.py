"""What a process has of the operating system: sockets, descriptors, signals, CPUs, its user.

Knows no option and no request; may import `log` and `errors`.
"""
