"""The pages: lists from the ORM, a form, a session, streams, files and errors."""

import json
from pathlib import Path

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Count
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template import engines
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods

from .models import Author, Book

PAGE = engines["django"].from_string("""<!doctype html><title>Library</title>
{% for message in messages %}<p class="message">{{ message }}</p>{% endfor %}
{% for book in books %}<li><a href="{% url 'book' book.pk %}">{{ book }}</a> {{ book.author }}
{% endfor %}<form method="post">{% csrf_token %}{{ form.as_p }}<button>Add</button></form>""")


class BookForm(forms.ModelForm):
    writer = forms.CharField(max_length=80)

    class Meta:
        model = Book
        fields = ("title", "year")


@require_http_methods(["GET", "HEAD", "POST"])
def books(request):
    form = BookForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        book = form.save(commit=False)
        book.author, _ = Author.objects.get_or_create(name=form.cleaned_data["writer"])
        book.save()
        messages.success(request, f"added {book}")
        return redirect("book", number=book.pk)
    context = {"books": Book.objects.select_related("author"), "form": form}
    status = 422 if request.method == "POST" else 200
    return HttpResponse(PAGE.render(context, request), status=status)


def books_as_json(request):
    query = Author.objects.annotate(number=Count("books")).order_by("name")
    return JsonResponse({"authors": list(query.values("name", "number"))})


def book(request, number):
    found = get_object_or_404(Book, pk=number)
    return HttpResponse(f"<h1>{found}</h1>")


@require_GET
def export(request):
    rows = (f"{book.pk},{book.title}\n" for book in Book.objects.iterator())
    return StreamingHttpResponse(rows, content_type="text/csv; charset=utf-8")


def file(request):
    return FileResponse(Path(__file__).open("rb"), as_attachment=True, filename="víews.py")


def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    answer = HttpResponse(f"visit {request.session['visits']}")
    answer.set_cookie("seen", "yes", max_age=60, samesite="Lax", httponly=True)
    answer.delete_cookie("unwanted")
    return answer


@login_required
def members(request):
    return HttpResponse(f"hello {request.user}")


@csrf_exempt
def echo(request, rest):
    seen = {
        "method": request.method,
        "rest": rest,
        "path": request.path,
        "query": sorted(request.GET.lists()),
        "form": sorted(request.POST.lists()),
        "files": {name: len(file.read()) for name, file in request.FILES.items()},
        "type": request.content_type,
        "uri": request.build_absolute_uri(),
        "x": request.headers.get("X-One"),
    }
    if request.content_type == "application/json":
        seen["json"] = json.loads(request.body)
    return JsonResponse(seen)


def nothing(request):
    return HttpResponse(status=204)


def broken(request):
    raise ZeroDivisionError("as the test wants it")
