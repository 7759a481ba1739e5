"""The project as a WSGI application that reports its own name."""

from django.core.wsgi import get_wsgi_application

django_application = get_wsgi_application()


def application(environ, start_response):
    def start(status, headers, *exc_info):
        return start_response(status, [*headers, ("X-From", "surveys.wsgi")], *exc_info)

    return django_application(environ, start)
