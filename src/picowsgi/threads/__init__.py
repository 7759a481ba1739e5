"""What serves in one process: event loops, their threads, the access log and incidents.

May import `wsgi` and what is below it.
"""
