/*
 * What decides about bytes, and knows no socket and no clock. Each file knows only what stands above
 * its own part here:
 *
 *     buffer, fields, head, lines, chunked, index, environ, cache
 *
 * What lies above them, with sockets and clocks, is in conn.h and server.h.
 */
#ifndef PW_CORE_H
#define PW_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api.h"

/* ------------------------------------------------------------------ outcomes */

/* The outcome of every parser. */
typedef enum {
    PW_PARSE_DONE,
    PW_PARSE_MORE,
    PW_PARSE_ERROR,
} pw_parse;

/* Why a request is refused: name, status, what the client is told. The one list of them. */
#define PW_ERRORS(X)                                                                               \
    X(REQUEST_LINE, 400, "malformed request line")                                                 \
    X(METHOD, 400, "malformed or overlong method")                                                 \
    X(TARGET, 400, "malformed request target")                                                     \
    X(VERSION, 400, "malformed HTTP version")                                                      \
    X(LINE_END, 400, "a line of the head does not end in CRLF")                                    \
    X(FIELD, 400, "malformed field line")                                                          \
    X(FOLD, 400, "obsolete line folding")                                                          \
    X(UNDERSCORE, 400, "a field name with an underscore")                                          \
    X(HOST, 400, "missing, empty, repeated or malformed Host")                                     \
    X(TYPE, 400, "repeated Content-Type")                                                          \
    X(LENGTH, 400, "repeated or malformed Content-Length")                                         \
    X(CODING, 400, "repeated, malformed or misplaced Transfer-Encoding")                           \
    X(LENGTH_AND_CODING, 400, "Content-Length together with Transfer-Encoding")                    \
    X(CHUNK, 400, "malformed chunked content")                                                     \
    X(HEAD_TIMEOUT, 408, "the request head took too long")                                         \
    X(BODY_TIMEOUT, 408, "the request content took too long")                                      \
    X(BODY_SIZE, 413, "the request content is too large")                                          \
    X(TARGET_SIZE, 414, "the request target is too long")                                          \
    X(EXPECTATION, 417, "unknown expectation")                                                     \
    X(HEAD_SIZE, 431, "the request head is too large")                                             \
    X(FIELD_COUNT, 431, "too many fields")                                                         \
    X(CONNECT, 501, "CONNECT is not supported")                                                    \
    X(OTHER_CODING, 501, "unknown transfer coding")                                                \
    X(MEMORY, 503, "out of memory")                                                                \
    X(HEAD_MEMORY, 503, "too many requests are being received")                                    \
    X(QUEUE, 503, "no thread is free for the request")                                             \
    X(OTHER_VERSION, 505, "HTTP version not supported")                                            \
    X(STORAGE, 507, "no room for the request content")

typedef enum {
    PW_E_NONE,
#define PW_ERROR_NAME(name, status, text) PW_E_##name,
    PW_ERRORS(PW_ERROR_NAME)
#undef PW_ERROR_NAME
} pw_error;

/* ------------------------------------------------------------------ bytes: buffer.c */

/* All memory of the core comes from here, so that a test can make the n-th allocation fail. */
void *pw_alloc(size_t size);
void *pw_realloc(void *old, size_t size);
void pw_free(void *memory);
/* The n-th allocation from now on fails, and all after it; 0: none. Not thread-safe. */
void pw_alloc_fail_after(long n);

/*
 * Bytes received and not yet parsed: data[start, end). Made and freed by the pool, owned by one
 * connection while it has such bytes.
 */
typedef struct pw_buffer {
    struct pw_buffer *next; /* borrowed; in the pool only */
    size_t size;            /* of data */
    size_t start;
    size_t end;
    char data[];
} pw_buffer;

#define PW_BUFFER_SIZE 16384
#define PW_BUFFER_LEAST 1024 /* where that is enough for what is kept: see pw_buffer_trim */
#define PW_POOL_MOST 64

/* The buffers that no connection holds, the one used last on top because it is in the cache. */
typedef struct {
    pw_buffer *first; /* owned */
    unsigned count;
    size_t held; /* bytes of the others, which connections hold */
} pw_pool;

/* NULL: out of memory. */
pw_buffer *pw_buffer_get(pw_pool *pool);
void pw_buffer_put(pw_pool *pool, pw_buffer *buffer);
/* Makes room for at least `want` more bytes; *buffer may move. False: out of memory. */
bool pw_buffer_room(pw_pool *pool, pw_buffer **buffer, size_t want);
/* Puts what is in the buffer into a smaller one, where that saves much: false: it does not, or there is
 * no memory. */
bool pw_buffer_trim(pw_pool *pool, pw_buffer **buffer);
void pw_pool_free(pw_pool *pool);

/* ------------------------------------------------------------------ bytes: fields.c */

/* Numbers of the keys that the core itself looks at; the rest are in fields.c only. */
enum {
    PW_KEY_TRANSFER_ENCODING, /* never in a block, so that no number there is NUL */
    PW_KEY_METHOD,
    PW_KEY_QUERY,
    PW_KEY_PROTOCOL,
    PW_KEY_URI,
    PW_KEY_PATH,
    PW_KEY_ADDRESS,
    PW_KEY_PORT,
    PW_KEY_CONTENT_LENGTH,
    PW_KEY_CONTENT_TYPE,
    PW_KEY_HOST,
    PW_KEY_CONNECTION,
    PW_KEY_EXPECT,
    PW_KEY_COOKIE,
    PW_KEY_FIRST_OTHER,
};

/* The number of a field name (a token, any case), or PW_OTHER_NAME. */
uint8_t pw_field_number(const char *name, size_t size);
/* RFC 9110 section 5.6.2: tchar. */
bool pw_is_token(const char *text, size_t size);
bool pw_is_tchar(unsigned char c);
/* Compares ASCII text without case; lower is in lower case. */
bool pw_equals(const char *text, size_t size, const char *lower);

/* ------------------------------------------------------------------ bytes: head.c */

typedef struct {
    const char *at; /* borrowed: points into the buffer that was parsed */
    size_t size;
} pw_span;

typedef struct {
    pw_span name;
    pw_span value;
    uint8_t number; /* of the key, or PW_OTHER_NAME */
} pw_field;

/* What the connection has to know of a head after its bytes are gone. */
typedef struct {
    uint32_t size;          /* of the whole head, with a leading empty line and the last one */
    uint32_t line_size;     /* of the request line with its CRLF */
    int64_t content_length; /* -1: none given */
    uint8_t minor;          /* 0: HTTP/1.0, 1: all later ones */
    bool is_head;
    bool keep_alive;
    bool chunked;
    bool expect_continue;
} pw_facts;

typedef struct {
    pw_facts facts;
    pw_span method;
    pw_span target; /* as received */
    pw_span path;   /* still percent-encoded */
    pw_span query;
    pw_span authority; /* of the absolute form, else at is NULL */
    size_t field_count;
    pw_field *fields; /* borrowed: the caller's array of max_fields */
} pw_head;

typedef struct {
    size_t max_head_size;
    size_t max_fields;
    int64_t max_body_size; /* 0: no limit */
    int underscore_fields;
} pw_limits;

#define PW_TARGET_MOST 16384
#define PW_METHOD_MOST 32
#define PW_FIELDS_MOST 1024 /* of --max-fields */

/* Whether heads are parsed with SIMD instructions: this processor and this build have them. */
bool pw_parser_has_simd(void);

/* The request line in data[0, size), its CRLF included. Fills method, target, path, ... */
pw_error pw_request_line(const char *data, size_t size, pw_head *head);

/* How far earlier calls of pw_head_parse have come with a head, so that none looks at all of it again:
 * offsets are from the request line. All zero at first. */
typedef struct {
    size_t scanned; /* every LF in so many bytes is known */
    size_t judged;  /* so many bytes are whole lines with nothing wrong so far; 0: none is */
    size_t fields;  /* how many of these lines are fields */
} pw_head_progress;

/*
 * The head at data[0, size). The answer depends on the bytes alone, never on how they were split: a
 * line is judged when its LF is there.
 */
pw_parse pw_head_parse(const pw_limits *limits, const char *data, size_t size,
                       pw_head_progress *progress, pw_head *head, pw_error *error);

/* ------------------------------------------------------------------ bytes: lines.c */

/* A field line, or several, of a head that is kept. */
typedef struct {
    uint32_t size;      /* with its CRLF */
    uint32_t name_size; /* with its colon; 0: the line has to stay as it is */
    uint8_t number;
} pw_line;

typedef struct {
    size_t count;
    pw_line lines[];
} pw_lines;

/* The lines of the valid head at data, which begins with its request line. NULL: out of memory. */
pw_lines *pw_lines_new(const pw_head *head, const char *data);

#define PW_CHANGES_MOST 8
typedef struct {
    size_t count;
    struct pw_change {
        uint8_t number;
        pw_span value; /* borrowed: points into the new head */
    } items[PW_CHANGES_MOST];
} pw_changes;
typedef struct pw_change pw_change;

/*
 * Whether data[0, size) begins with field lines that are those at `before`, but for the values of a few:
 * what a head may have behind its request line. Returns their size with the empty line, or 0.
 */
size_t pw_lines_follow(const pw_lines *lines, const char *before, const char *data, size_t size,
                       pw_changes *changes);

/* ------------------------------------------------------------------ bytes: chunked.c */

typedef enum {
    PW_CHUNKED_SIZE,
    PW_CHUNKED_SIZE_DIGITS,
    PW_CHUNKED_EXTENSION,
    PW_CHUNKED_QUOTED,
    PW_CHUNKED_QUOTED_PAIR,
    PW_CHUNKED_SIZE_LF,
    PW_CHUNKED_DATA,
    PW_CHUNKED_DATA_CR,
    PW_CHUNKED_DATA_LF,
    PW_CHUNKED_TRAILER,
    PW_CHUNKED_TRAILER_NAME,
    PW_CHUNKED_TRAILER_VALUE,
    PW_CHUNKED_TRAILER_LF,
    PW_CHUNKED_LAST_LF,
    PW_CHUNKED_DONE,
} pw_chunked_state;

/* RFC 9112 section 7.1. All zero is the start. */
typedef struct {
    pw_chunked_state state;
    int64_t left;      /* of the current chunk */
    int64_t total;     /* data bytes passed on */
    int64_t overhead;  /* bytes of extensions and of leading zeros, in all */
    uint32_t line;     /* bytes of this extension, or of the trailer section */
    uint8_t extension; /* where in an extension: see chunked.c */
} pw_chunked;

/*
 * Decodes data[0, size) up to the next stretch of content: *used says how far it got, *content is
 * the stretch (size 0 when none). PW_PARSE_MORE: call again with what follows.
 */
pw_parse pw_chunked_parse(pw_chunked *chunked, const char *data, size_t size, size_t *used,
                          pw_span *content);

/* ------------------------------------------------------------------ bytes: index.c */

#define PW_NO_FIELD UINT16_MAX

/* The fields of a head that become values, in the order of their numbers, whatever order they came
 * in: so most requests have the same order of keys. */
typedef struct {
    uint64_t numbers[4];             /* a bit for each */
    uint16_t first[256];             /* by number: the first field with it */
    uint16_t others[PW_FIELDS_MOST]; /* the first field of each name that has no number */
    size_t other_count;
    uint16_t next[PW_FIELDS_MOST]; /* by field: the next one with the same name, or PW_NO_FIELD */
} pw_index;

void pw_index_make(pw_index *index, const pw_head *head);
/* Takes the lowest number out; -1: there is none. */
int pw_index_pop(uint64_t numbers[4]);
/* Field names are compared as the keys they become: without case, "-" and "_" the same. */
char pw_key_char(char c);

static inline uint64_t pw_index_bit(uint8_t number)
{
    return (uint64_t)1 << (number & 63);
}

/* ------------------------------------------------------------------ bytes: environ.c */

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
} pw_kept;

/* What is kept of the head at data. NULL: nothing can be said of its like, or out of memory. */
pw_kept *pw_kept_new(const pw_head *head, const char *data);
/*
 * The values that are not in the environ made of the kept head, which stands at data. False: no
 * values can make the one of the other, for a name is missing.
 */
bool pw_block_make_changes(pw_block *block, const pw_head *head, int64_t content_length,
                           const pw_kept *kept, const char *data);
/* Writes the decimal digits of value (not negative); returns how many. */
size_t pw_digits(char *to, int64_t value);

/* ------------------------------------------------------------------ bytes: cache.c */

/*
 * Heads of recent requests, so that the same head again is recognised by one comparison. An entry
 * belongs to one connection and dies with it: what one client sent never reaches another.
 */
#define PW_CACHE_SIZE 512
#define PW_CACHE_HEAD_MOST 8192
#define PW_CACHE_REST_MS 1000 /* an entry used within this time is not taken away */

typedef struct {
    char *log; /* owned: log_size bytes, what the access log says of such a request; or NULL */
    size_t log_size;
    char *head;      /* owned: facts.size bytes */
    pw_kept *kept;   /* owned: the values there; or NULL */
    pw_lines *lines; /* owned: the lines there; or NULL */
    void *owner;     /* borrowed: the connection, or NULL: free */
    int64_t used;    /* ms */
    bool busy;       /* a thread is at a request of its owner, and may look at the template yet */
    uint32_t misses;
    pw_facts facts;
} pw_entry;

typedef struct {
    pw_entry entries[PW_CACHE_SIZE];
    unsigned hand;
} pw_cache;

/* An entry for owner, or -1: all are in use. *evicted is the owner that lost it, or NULL. */
int pw_cache_take(pw_cache *cache, void *owner, int64_t now, void **evicted);
/* Keeps a head in an entry. False: too large, or out of memory. */
bool pw_cache_store(pw_cache *cache, int entry, const char *data, const pw_facts *facts);
void pw_cache_release(pw_cache *cache, int entry);
void pw_cache_free(pw_cache *cache);

#endif
