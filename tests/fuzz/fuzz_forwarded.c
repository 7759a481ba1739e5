/*
 * Invariant: any values of Forwarded and the X-Forwarded fields give clean values of the environ that
 * fit into their block, or are refused. A list has the same meaning in one line and in several.
 */
#include <string.h>

#include "outcome.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static const char *const names[] = {
    "Forwarded: ",        "X-Forwarded-For: ",  "X-Forwarded-Proto: ",
    "X-Forwarded-Host: ", "X-Forwarded-Port: ", "X-Forwarded-Prefix: ",
};
enum { NAMES = sizeof names / sizeof names[0] };

/* Makes a head. Each line of the input is a value, and its first byte chooses the field. split: each
 * element of an X-Forwarded field is in a line of its own. */
static void make_head(test_text *to, const char *data, size_t size, bool split)
{
    text_clear(to);
    text_add_string(to, "GET /a/b HTTP/1.1\r\nHost: h\r\n");
    for (const char *at = data, *end = data + size; at < end;) {
        const char *name = names[(unsigned char)*at++ % NAMES];
        text_add_string(to, name);
        for (; at < end && *at != '\n'; at++) {
            if (split && *at == ',' && name != names[0]) {
                text_add_string(to, "\r\n");
                text_add_string(to, name);
            } else if (*at == '\t' || ((unsigned char)*at >= ' ' && *at != 127)) {
                text_add(to, at, 1);
            }
        }
        text_add_string(to, "\r\n");
        at += at < end;
    }
    text_add_string(to, "\r\n");
}

/* The last line of an outcome, which has the values, or why there are none. */
static const char *last_line(const test_text *text, size_t *size)
{
    const char *at = text->at + text->size - 1;
    while (at > text->at && at[-1] != '\n')
        at--;
    *size = (size_t)(text->at + text->size - at);
    return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const pw_limits limits = {
        .max_head_size = 1 << 16,
        .max_fields = PW_FIELDS_MOST,
        .forwarding = PW_FORWARDING_READ,
    };
    static test_text head, whole, split; /* never freed: later inputs use them again */
    size_t sizes[2];
    make_head(&head, (const char *)bytes, size, false);
    test_cuts cuts = cuts_none(head.size);
    outcome_of_head(&whole, &limits, head.at, &cuts);
    if (memcmp(whole.at, LITERAL("done")) != 0)
        return 0; /* too many fields */
    make_head(&head, (const char *)bytes, size, true);
    cuts = cuts_none(head.size);
    outcome_of_head(&split, &limits, head.at, &cuts);
    if (memcmp(split.at, LITERAL("done")) != 0)
        return 0;
    const char *values = last_line(&whole, &sizes[0]), *same = last_line(&split, &sizes[1]);
    if (memmem(values, sizes[0], LITERAL("forwarded")) == values)
        REQUIRE(sizes[0] == sizes[1] && memcmp(values, same, sizes[0]) == 0);
    return 0;
}
