#ifndef PW_CONTENT_H
#define PW_CONTENT_H

#include "chunked.h"
#include "store.h"

/* The content of one request. Owned by its connection. */
typedef struct {
    int64_t length; /* that will come; -1: chunked, not known */
    int64_t size;   /* that is here */
    char *memory;   /* owned; NULL once it is in the file */
    size_t room;    /* of memory */
    int file;       /* owned; -1 while it is in memory */
    pw_chunked chunked;
} pw_content;

/* length -1: chunked. NULL: out of memory. */
pw_content *pw_content_new(int64_t length);
void pw_content_free(pw_content *content, pw_store *store);
/* Where the next bytes, as they come, can be put by the caller, who then adds to size; NULL: they are
 * for pw_content_take. size: no more than is still to come. */
char *pw_content_space(pw_content *content, pw_store *store, size_t size);
/* Adds decoded bytes. PW_E_STORAGE: errno says why. */
pw_error pw_content_add(pw_content *content, pw_store *store, const char *data, size_t size);
/*
 * Takes what belongs to the content from data[0, size): *used says how much. PW_PARSE_DONE when the
 * content is complete.
 */
pw_parse pw_content_take(pw_content *content, pw_store *store, const char *data, size_t size,
                         size_t *used, pw_error *error);

#endif
