#ifndef PW_CONTENT_H
#define PW_CONTENT_H

#include "chunked.h"
#include "store.h"

/* The content of one request. Its connection owns it. */
typedef struct {
    int64_t length; /* announced bytes; -1: chunked, not known */
    int64_t size;   /* bytes received */
    char *memory;   /* owned; NULL: the content is in the file */
    size_t room;    /* of memory */
    int file;       /* owned; -1: the content is in memory */
    pw_chunked chunked;
} pw_content;

/* length -1: chunked. NULL: out of memory. */
pw_content *pw_content_new(int64_t length);
void pw_content_free(pw_content *content, pw_store *store);
/* Where the caller can put the next bytes as they arrive. It then adds their number to `size` of
 * the content. NULL: pass them to pw_content_take. size: at most the bytes that are still to
 * come. */
char *pw_content_space(pw_content *content, pw_store *store, size_t size);
/* Adds decoded bytes. PW_E_STORAGE: errno gives the reason. */
pw_error pw_content_add(pw_content *content, pw_store *store, const char *data, size_t size);
/*
 * Takes bytes of the content from data[0, size). *used is their number. PW_PARSE_DONE: the content
 * is complete.
 */
pw_parse pw_content_take(pw_content *content, pw_store *store, const char *data, size_t size,
                         size_t *used, pw_error *error);

#endif
