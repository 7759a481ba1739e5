"""The project's pages."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("survey.urls")),
    path("admin/", admin.site.urls),
]
