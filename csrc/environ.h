/* The block of values from which Python makes the environ. */
#ifndef PW_ENVIRON_H
#define PW_ENVIRON_H

#include "forwarded.h"
#include "lines.h"
#include "proxy_protocol.h"

/* The largest size of a block with these limits, in bytes. */
size_t pw_block_most(const pw_limits *limits);

typedef struct {
    char *at;    /* owned by the thread: pw_block_most bytes */
    size_t size; /* bytes filled */
    uint32_t values;
    int32_t flags; /* for the request's number: PW_OTHER_NAMES, PW_UPGRADE, or 0 */
    pw_span root;  /* borrowed as long as the server lives: see pw_settings.root_path */
} pw_block;

/* Fills the block with all values of a request. content_length: bytes of the decoded content; -1:
 * none. forwarded NULL: nothing is forwarded. proxied NULL: the peer is the sender. */
void pw_block_make(pw_block *block, const pw_head *head, const pw_peer *peer,
                   const pw_proxied *proxied, const pw_forwarded *forwarded,
                   int64_t content_length);
/* Fills the block with the values of the request line and of the changed fields. same_method:
 * leaves out the method. The head has no X-Forwarded-Prefix that is used. */
void pw_block_make_line(pw_block *block, const pw_head *head, bool same_method,
                        const pw_changes *changes);

/* The values of a head from which an environ was made. Offsets count from the head's first byte. */
typedef struct {
    uint32_t method, method_size;
    uint8_t minor;
    uint8_t set; /* which values were forwarded: pw_forwarded.set, or 0 */
    bool has_length;
    uint8_t count;      /* number of values */
    uint8_t place[256]; /* by number: 1 + index in values; 0: not in it */
    struct {
        uint32_t at, size; /* UINT32_MAX: the name came more than once */
    } values[];
} pw_template;

/* Keeps the values of the head at `data`. NULL: heads cannot be
 * compared with it, or out of memory. */
pw_template *pw_template_new(const pw_head *head, const pw_forwarded *forwarded, const char *data);
/*
 * Fills the block with the values that differ from those of the kept head, whose bytes are at
 * `data`, and with all forwarded values. False: a name or a forwarded value is missing, so no values
 * can turn one environ into the other.
 */
bool pw_block_make_changes(pw_block *block, const pw_head *head, const pw_forwarded *forwarded,
                           int64_t content_length, const pw_template *template, const char *data);

#endif
