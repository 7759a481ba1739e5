"""The URLs of the site."""

from django.contrib import admin
from django.urls import path

from django_site.library import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", views.books, name="books"),
    path("books.json", views.books_as_json),
    path("book/<int:number>/", views.book, name="book"),
    path("export", views.export),
    path("file", views.file),
    path("visits", views.visits),
    path("members", views.members),
    path("echo/<path:rest>", views.echo),
    path("nothing", views.nothing),
    path("broken", views.broken),
]
