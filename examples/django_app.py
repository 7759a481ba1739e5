"""Django in a single file: settings, a form with CSRF protection, a session, a page.

A project of more than one file needs none of this: `picowsgi mysite.wsgi` serves it. This one needs
Django (`pip install django`) and one command; then open the address in a browser.

    picowsgi examples/django_app.py

    curl http://127.0.0.1:8000/healthy
"""

from __future__ import annotations

import secrets

import django
from django import forms
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.template import engines
from django.urls import path

settings.configure(
    SECRET_KEY=secrets.token_urlsafe(),  # new at each start: sessions end with the process
    ALLOWED_HOSTS=["127.0.0.1", "localhost", "[::1]"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
)
# Before the form below, whose labels need the settings.
application = get_wsgi_application()

PAGE = engines["django"].from_string("""<!doctype html>
<html lang="en">
<title>Shopping list</title>
<style>body { font: 1.1rem/1.6 system-ui; max-width: 36rem; margin: 3rem auto }</style>
<h1>Shopping list</h1>
<ul>{% for item in items %}<li>{{ item }}</li>{% empty %}<li>nothing yet</li>{% endfor %}</ul>
<form method="post">{% csrf_token %}{{ form.item.errors }}{{ form.item }}
<button>Add</button></form>
<p>Served by Django {{ version }}.</p>
</html>
""")


class ItemForm(forms.Form):
    item = forms.CharField(max_length=40)


def shopping_list(request: HttpRequest) -> HttpResponse:
    form = ItemForm(request.POST or None)
    items = request.session.get("items", [])
    if form.is_valid():
        request.session["items"] = [*items, form.cleaned_data["item"]]
        return redirect("list")
    context = {"form": form, "items": items, "version": django.get_version()}
    return HttpResponse(PAGE.render(context, request))


def healthy(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"healthy": True})


urlpatterns = [
    path("", shopping_list, name="list"),
    path("healthy", healthy),
]
