/*
 * Invariant: any bytes give content that is inside them, and its end, "more", or an error at one
 * byte. The result does not depend on how the bytes are split.
 */
#include <string.h>

#include "outcome.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static test_text whole, split; /* never freed: later inputs use them again */
    const char *data = (const char *)bytes;
    if (size > 4 && memcmp(data, "POST", 4) == 0) { /* a seed: its content is after the head */
        const char *end = memmem(data, size, LITERAL("\r\n\r\n"));
        if (end == NULL)
            return -1;
        size -= (size_t)(end + 4 - data);
        data = end + 4;
    }
    uint64_t random = cuts_hash(data, size);
    test_cuts cuts = cuts_none(size);
    outcome_of_chunked(&whole, data, &cuts);
    for (int i = 0; i < 3; i++) {
        cuts = cuts_drawn(&random, size);
        outcome_of_chunked(&split, data, &cuts);
        REQUIRE(text_same(&whole, &split));
    }
    return 0;
}
