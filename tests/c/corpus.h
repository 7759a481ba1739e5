/* The wire corpus as `python -m wire.export` writes it. */
#ifndef PW_CORPUS_H
#define PW_CORPUS_H

#include "check.h"
#include "types.h"

typedef struct {
    char name[128];
    test_text data;
    int requests;          /* that the application must see */
    char statuses[64];     /* that may follow them, or "-" */
    char alternatives[64]; /* that may stand in the place of the last request, or "-" */
    bool closed;
    pw_settings settings; /* site_settings with the case's options */
} test_case;

/* Calls with each case of the exported folder; ends the program where there is none. */
void corpus_each(const char *directory, void (*test)(const test_case *one));
/* Whether "400|501" has it. */
bool corpus_allows(const char *statuses, int status);

#endif
