"""Questions are edited together with their answers."""

from django.contrib import admin

from survey.models import Answer, Question


class AnswersInline(admin.TabularInline):
    model = Answer
    extra = 2


@admin.register(Question)
class QuestionAdmin(admin.ModelAdmin):
    list_display = ("text", "asked")
    search_fields = ("text",)
    inlines = (AnswersInline,)
