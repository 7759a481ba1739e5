"""A small Django project, a library with books, for the comparison with Django's test client."""
