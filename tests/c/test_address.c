/* csrc/address.c: the addresses that it reads and writes are those of the C library. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "address.h"
#include "check.h"

static pw_span span_of(const char *text)
{
    return (pw_span){text, strlen(text)};
}

static void check_same(const char *text, bool is_v6)
{
    ABOUT("%s", text);
    uint8_t own[16] = {0}, other[16] = {0};
    int family = is_v6 ? AF_INET6 : AF_INET;
    bool is_good = inet_pton(family, text, other) == 1;
    CHECK(pw_address_read(span_of(text), is_v6, own) == is_good);
    if (!is_good)
        return;
    CHECK(memcmp(own, other, sizeof own) == 0);
    char written[PW_ADDRESS_SIZE], expected[PW_ADDRESS_SIZE];
    pw_address_write(written, own, is_v6);
    inet_ntop(family, other, expected, sizeof expected);
    CHECK_STRING(written, strlen(written), expected);
}

static void four_numbers_are_an_address_up_to_255_without_leading_zeros(void)
{
    char text[64];
    for (int number = 0; number < 1100; number++) {
        for (int place = 0; place < 4; place++) {
            int numbers[4] = {1, 20, 255, 0};
            numbers[place] = number;
            snprintf(text, sizeof text, "%d.%d.%d.%d", numbers[0], numbers[1], numbers[2],
                     numbers[3]);
            check_same(text, false);
        }
    }
}

static void other_forms_are_read_and_written_as_the_c_library_does(void)
{
    static const char *const texts[] = {
        "",
        ".",
        "1",
        "1.2.3",
        "1.2.3.",
        "1.2.3.4.",
        "1.2.3.4.5",
        ".1.2.3.4",
        "1..3.4",
        "01.2.3.4",
        "1.2.3.00",
        "0.0.0.0",
        "1.2.3.-4",
        "1.2.3.4 ",
        "1.2.3.99999999999999999999",
        "::",
        "::1",
        "1::",
        "::ffff:192.0.2.1",
        "2001:db8:0:0:0:0:0:1",
        "2001:DB8::00a1",
        "1:2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7:8:9",
        "1::2::3",
        ":1",
        "g::",
        "12345::",
        "0000:0000:0000:0000:0000:ffff:255.255.255.255",
        "0000:0000:0000:0000:0000:ffff:0255.255.255.255",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        check_same(texts[i], false);
        check_same(texts[i], true);
    }
}

static void a_nul_a_zone_and_the_bytes_after_the_span_are_no_part_of_an_address(void)
{
    uint8_t bytes[16];
    ABOUT("spans");
    CHECK(!pw_address_read((pw_span){"::1\0", 4}, true, bytes));
    CHECK(!pw_address_read((pw_span){"1.2.3.4\0", 8}, false, bytes));
    CHECK(!pw_address_read(span_of("fe80::1%lo"), true, bytes));
    CHECK(pw_address_read((pw_span){"1.2.3.45", 7}, false, bytes)); /* not the byte after it */
    CHECK(bytes[3] == 4);
}

int main(void)
{
    RUN(four_numbers_are_an_address_up_to_255_without_leading_zeros);
    RUN(other_forms_are_read_and_written_as_the_c_library_does);
    RUN(a_nul_a_zone_and_the_bytes_after_the_span_are_no_part_of_an_address);
    return check_end();
}
