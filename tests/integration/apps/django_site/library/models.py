"""Authors and their books."""

from django.db import models


class Author(models.Model):
    name = models.CharField(max_length=80, unique=True)

    def __str__(self):
        return self.name


class Book(models.Model):
    title = models.CharField(max_length=120)
    author = models.ForeignKey(Author, on_delete=models.CASCADE, related_name="books")
    year = models.PositiveIntegerField()

    class Meta:
        ordering = ("year", "title")

    def __str__(self):
        return f"{self.title} ({self.year})"
