/* The block of values from which Python makes the environ. */
#ifndef PW_ENVIRON_H
#define PW_ENVIRON_H

#include "lines.h"

/* Bytes a block can need at most for these limits. */
size_t pw_block_most(const pw_limits *limits);

typedef struct {
    char *at;    /* owned by the thread; pw_block_most bytes */
    size_t size; /* filled */
    uint32_t values;
    bool other_names;
} pw_block;

/* The peer's address as text; both empty for a unix socket. */
typedef struct {
    char address[46];
    char port[6];
} pw_peer;

/* All values of a request. content_length: of the decoded content, or -1 when there is none. */
void pw_block_make(pw_block *block, const pw_head *head, const pw_peer *peer,
                   int64_t content_length);
/* Those of the request line, the method only unless it is the same, and these fields'. */
void pw_block_make_line(pw_block *block, const pw_head *head, bool same_method,
                        const pw_changes *changes);

/* The values of a head that an environ was made of; offsets are from its first byte. */
typedef struct {
    uint32_t method, method_size;
    uint8_t minor;
    bool has_length;
    uint8_t count;      /* of values */
    uint8_t place[256]; /* by number: 1 + where in values; 0: not among them */
    struct {
        uint32_t at, size; /* UINT32_MAX: of a name that came more than once */
    } values[];
} pw_template;

/* What is kept of the head at data. NULL: nothing can be said of its like, or out of memory. */
pw_template *pw_template_new(const pw_head *head, const char *data);
/*
 * The values that are not in the environ made of the kept head, which stands at data. False: no
 * values can make the one of the other, for a name is missing.
 */
bool pw_block_make_changes(pw_block *block, const pw_head *head, int64_t content_length,
                           const pw_template *template, const char *data);

#endif
