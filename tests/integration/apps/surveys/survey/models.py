"""A question has several answers, and each answer counts its votes."""

from django.db import models


class Question(models.Model):
    text = models.CharField("question", max_length=200)
    asked = models.DateTimeField("asked on", auto_now_add=True)

    def __str__(self):
        return self.text


class Answer(models.Model):
    question = models.ForeignKey(Question, models.CASCADE, related_name="answers")
    text = models.CharField(max_length=200)
    votes = models.PositiveIntegerField(default=0)

    def __str__(self):
        return self.text
