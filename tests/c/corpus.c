#include "corpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "site.h"

static void read_file(const char *directory, const char *name, test_text *to)
{
    char path[4096], part[16384];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "rb");
    ABOUT("%s", path);
    REQUIRE(file != NULL);
    for (size_t size; (size = fread(part, 1, sizeof part, file)) > 0;)
        text_add(to, part, size);
    fclose(file);
}

static void read_option(char *option, pw_settings *settings)
{
    char *value = strchr(option, '=');
    ABOUT("option %s", option);
    REQUIRE(value != NULL);
    *value++ = '\0';
    if (strcmp(option, "max_fields") == 0)
        settings->max_fields = atoi(value);
    else if (strcmp(option, "max_head_size") == 0)
        settings->max_head_size = atoi(value);
    else if (strcmp(option, "max_body_size") == 0)
        settings->max_body_size = atoi(value);
    else if (strcmp(option, "body_memory") == 0)
        settings->body_memory = atoi(value);
    else if (strcmp(option, "proxy_protocol") == 0)
        settings->proxy_protocol = strcmp(value, "on") == 0;
    else if (strcmp(option, "underscore_fields") == 0)
        settings->underscore_fields = strcmp(value, "allow") == 0    ? PW_UNDERSCORE_ALLOW
                                      : strcmp(value, "refuse") == 0 ? PW_UNDERSCORE_REFUSE
                                                                     : PW_UNDERSCORE_DROP;
    else
        REQUIRE(!"an option that the C tests know");
}

/* Fields: file, requests, statuses, alternatives, closed or kept, options. */
static void read_line(const char *directory, char *line, test_case *one)
{
    char *columns[6], *rest = line;
    for (int i = 0; i < 6; i++)
        columns[i] = strsep(&rest, "\t\n");
    REQUIRE(columns[5] != NULL);
    memset(one, 0, sizeof *one);
    snprintf(one->name, sizeof one->name, "%s", columns[0]);
    one->requests = atoi(columns[1]);
    snprintf(one->statuses, sizeof one->statuses, "%s", columns[2]);
    snprintf(one->alternatives, sizeof one->alternatives, "%s", columns[3]);
    one->closed = strcmp(columns[4], "closed") == 0;
    one->settings = site_settings();
    while (columns[5] != NULL && strcmp(columns[5], "-") != 0)
        read_option(strsep(&columns[5], ","), &one->settings);
    read_file(directory, one->name, &one->data);
}

void corpus_each(const char *directory, void (*test)(const test_case *one))
{
    test_text index = {NULL, 0, 0};
    read_file(directory, "index.tsv", &index);
    text_add(&index, "", 1);
    int count = 0;
    for (char *rest = index.at, *line; (line = strsep(&rest, "\n")) != NULL && *line != '\0';) {
        test_case one;
        read_line(directory, line, &one);
        ABOUT("%s", one.name);
        test(&one);
        text_free(&one.data);
        count++;
    }
    text_free(&index);
    ABOUT("%s", "");
    CHECK(count > 100);
}

bool corpus_allows(const char *statuses, int status)
{
    char text[16];
    snprintf(text, sizeof text, "%d", status);
    return strstr(statuses, status == 0 ? "none" : text) != NULL;
}
