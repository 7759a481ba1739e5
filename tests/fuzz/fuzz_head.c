/*
 * Invariant: any bytes, with any limits, give a head whose spans are inside them, whose lines are
 * clean and whose block fits; or "more"; or an error. The result does not depend on how the bytes
 * are split, and both builds of picohttpparser give the same one.
 */
#include <stdlib.h>
#include <string.h>

#include "outcome.h"
#include "parser.h"
#include "vendor/picohttpparser/picohttpparser.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#if PW_HAVE_SSE42
static void require_same_parse(const char *data, size_t size)
{
    struct phr_header fields[2][20];
    const char *method[2], *target[2];
    size_t method_size[2], target_size[2], count[2] = {20, 20};
    int minor[2], outcome[2];
    pw_parse_request_function *const parsers[] = {pw_plain_parse_request, pw_sse42_parse_request};
    if (!__builtin_cpu_supports("sse4.2"))
        return;
    for (int i = 0; i < 2; i++)
        outcome[i] = parsers[i](data, size, &method[i], &method_size[i], &target[i],
                                &target_size[i], &minor[i], fields[i], &count[i], 0);
    REQUIRE(outcome[0] == outcome[1]);
    if (outcome[0] <= 0)
        return;
    REQUIRE(method[0] == method[1] && method_size[0] == method_size[1]);
    REQUIRE(target[0] == target[1] && target_size[0] == target_size[1]);
    REQUIRE(minor[0] == minor[1] && count[0] == count[1]);
    for (size_t i = 0; i < count[0]; i++) {
        REQUIRE(fields[0][i].name == fields[1][i].name);
        REQUIRE(fields[0][i].name_len == fields[1][i].name_len);
        REQUIRE(fields[0][i].value == fields[1][i].value);
        REQUIRE(fields[0][i].value_len == fields[1][i].value_len);
    }
}
#else
static void require_same_parse(const char *data, size_t size)
{
    (void)data;
    (void)size;
}
#endif

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static test_text whole, split; /* never freed: later inputs use them again */
    const char *data = (const char *)bytes;
    uint64_t random = cuts_hash(data, size);
    const bool narrow = random % 4 == 0;
    const pw_limits limits = {
        .max_head_size = narrow ? 100 : 3000,
        .max_fields = narrow ? 3 : 100,
        .max_body_size = narrow ? 100 : 0,
        .underscore_fields = (int)(random / 4 % 3),
        .forwarding = (pw_forwarding)(random / 16 % 3),
    };
    test_cuts cuts = cuts_none(size);
    outcome_of_head(&whole, &limits, data, &cuts);
    for (int i = 0; i < 3; i++) {
        cuts = cuts_drawn(&random, size);
        outcome_of_head(&split, &limits, data, &cuts);
        REQUIRE(text_same(&whole, &split));
    }
    require_same_parse(data, size);
    return 0;
}
