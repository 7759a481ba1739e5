/* csrc/request_id.c: the ids that it makes. tests/e2e/test_request_id.py has those of proxies. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "request_id.h"

/* The published outputs of SplitMix64 with the seed 1234567 are 6457827717110365317,
 * 3203168211198807973, 9817491932198370423 and 4593380528125082431. */
static void an_id_has_two_numbers_of_its_sequences_and_the_marks_of_a_uuid(void)
{
    static const char *const expected[] = {
        "599ed017-fb08-4c85-ac73-f08458540fa5",
        "2c73f084-5854-4fa5-883e-bce5a3f27c77",
        "883ebce5-a3f2-4c77-bfbe-f740e9177b3f",
    };
    pw_server *server = calloc(1, sizeof *server);
    REQUIRE(server != NULL);
    server->request_seed[0] = 1234567;
    server->request_seed[1] = 1234567 + 0x9e3779b97f4a7c15; /* one step further */
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        static const pw_conn conn = {.trusted = false};
        static const pw_head head = {.field_count = 0};
        char got[PW_REQUEST_ID_SIZE];
        memset(got, '?', sizeof got);
        pw_request_id(server, &conn, &head, got);
        CHECK_STRING(got, 36, expected[i]);
        CHECK_INT(got[36], 0);
    }
    free(server);
}

int main(void)
{
    RUN(an_id_has_two_numbers_of_its_sequences_and_the_marks_of_a_uuid);
    return check_end();
}
