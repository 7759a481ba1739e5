"""The project as a WSGI application, which says that it is this one."""

from django.core.wsgi import get_wsgi_application

django_application = get_wsgi_application()


def application(environ, start_response):
    def start(status, headers, *exc_info):
        return start_response(status, [*headers, ("X-From", "surveys.wsgi")], *exc_info)

    return django_application(environ, start)
