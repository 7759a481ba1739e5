"""Pages with the questions, and a few pages for tests."""

import threading
import time
from pathlib import Path

from django.conf import settings
from django.http import JsonResponse
from django.shortcuts import get_object_or_404, redirect, render

from survey.models import Answer, Question

TITLE = "What people were asked"

both_are_here = threading.Barrier(2)


def overview(request):
    questions = Question.objects.order_by("pk")
    return render(request, "survey/overview.html", {"title": TITLE, "questions": questions})


def question(request, number):
    asked = get_object_or_404(Question, pk=number)
    return render(request, "survey/question.html", {"title": asked.text, "question": asked})


def vote(request, number):
    answer = get_object_or_404(Answer, pk=number)
    answer.votes += 1
    answer.save()
    return redirect("survey:question", answer.question_id)


def broken(request):
    return 1 / 0


def threads(request):
    return JsonResponse(
        {
            "multithread": request.META["wsgi.multithread"],
            "server": request.META["SERVER_SOFTWARE"],
            "main": threading.current_thread() is threading.main_thread(),
        }
    )


def meet(request):
    """Return when two requests are here at the same time."""
    try:
        both_are_here.wait(float(request.GET.get("timeout", 10)))
    except threading.BrokenBarrierError:
        both_are_here.reset()
        return JsonResponse({"met": False})
    return JsonResponse({"met": True})


def hold(request):
    """Return when the file `release` exists."""
    (settings.BASE_DIR / "held").touch()
    while not (Path(settings.BASE_DIR) / "release").exists():
        time.sleep(0.01)
    return JsonResponse({"held": True})
