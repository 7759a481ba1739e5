/*
 * picohttpparser, built twice from its one file: for any processor, and with SSE4.2 if the compiler
 * supports it. parser.c chooses one for the processor.
 */
#ifndef PW_PARSER_H
#define PW_PARSER_H

#include <stdbool.h>
#include <stddef.h>

struct phr_header;

typedef int pw_parse_request_function(const char *data, size_t size, const char **method,
                                      size_t *method_size, const char **target, size_t *target_size,
                                      int *minor, struct phr_header *fields, size_t *field_count,
                                      size_t last_size);

typedef int pw_parse_headers_function(const char *data, size_t size, struct phr_header *fields,
                                      size_t *field_count, size_t last_size);

pw_parse_request_function pw_plain_parse_request;
pw_parse_request_function pw_sse42_parse_request;
pw_parse_headers_function pw_plain_parse_headers;
pw_parse_headers_function pw_sse42_parse_headers;

/* Whether this build and this processor parse heads with SIMD instructions. */
bool pw_parser_has_simd(void);
pw_parse_request_function *pw_request_parser(void);
pw_parse_headers_function *pw_fields_parser(void);

#if defined(__x86_64__) || defined(__i386__)
#define PW_HAVE_SSE42 1
#else
#define PW_HAVE_SSE42 0
#endif

#endif
