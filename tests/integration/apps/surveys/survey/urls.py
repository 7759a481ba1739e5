"""The application's pages."""

from django.urls import path

from survey import views

app_name = "survey"
urlpatterns = [
    path("", views.overview, name="overview"),
    path("<int:number>/", views.question, name="question"),
    path("vote/<int:number>/", views.vote, name="vote"),
    path("broken/", views.broken, name="broken"),
    path("threads/", views.threads, name="threads"),
    path("meet/", views.meet, name="meet"),
    path("hold/", views.hold, name="hold"),
]
