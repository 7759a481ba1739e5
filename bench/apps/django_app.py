"""The Django application of the scenarios: a page from a template, and the usual middleware."""

from __future__ import annotations

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import path

settings.configure(
    SECRET_KEY="not a secret: the benchmark has nothing to hide",  # noqa: S106
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
        }
    ],
)
app = get_wsgi_application()

PAGE = engines["django"].from_string("""<!doctype html>
<html lang="en">
<title>{{ title }}</title>
<h1>{{ title|upper }}</h1>
<table>
{% for row in rows %}<tr class="{% cycle 'odd' 'even' %}"><td>{{ row.id }}<td>{{ row.name }}</tr>
{% endfor %}</table>
<p>{{ rows|length }} rows{% if request.GET.q %} for {{ request.GET.q }}{% endif %}
</html>
""")
ROWS = [{"id": number, "name": f"<Row & {number}>"} for number in range(20)]


def table(request: HttpRequest) -> HttpResponse:
    return HttpResponse(PAGE.render({"title": "Twenty rows", "rows": ROWS}, request))


urlpatterns = [path("table", table)]
