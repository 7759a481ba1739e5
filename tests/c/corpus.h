/* The wire corpus, as `python -m wire.export` writes it. */
#ifndef PW_CORPUS_H
#define PW_CORPUS_H

#include "check.h"
#include "types.h"

typedef struct {
    char name[128];
    test_text data;
    int requests;          /* for the application */
    char statuses[64];     /* that may follow them, or "-" */
    char alternatives[64]; /* that may replace the last request, or "-" */
    bool closed;
    pw_settings settings; /* site_settings with the case's options */
} test_case;

/* Calls `test` with each case of the exported folder. Ends the program if there is none. */
void corpus_each(const char *directory, void (*test)(const test_case *one));
/* Whether a list such as "400|501" has the status. */
bool corpus_allows(const char *statuses, int status);

#endif
