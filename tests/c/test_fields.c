/* csrc/fields.c: the numbers of names, the keys of numbers, tokens. */
#include <string.h>

#include "check.h"
#include "fields.h"

/* The field name of a key, in lower case. False: the key belongs to no field. */
static bool name_of(int number, char name[64])
{
    const char *key = pw_key(number);
    if (number < PW_KEY_CONTENT_LENGTH)
        return false;
    if (strncmp(key, "HTTP_", 5) == 0)
        key += 5;
    size_t i = 0;
    for (; key[i] != '\0'; i++)
        name[i] = (char)(key[i] == '_' ? '-' : key[i] >= 'A' ? key[i] | 32 : key[i]);
    name[i] = '\0';
    return true;
}

static void every_key_is_found_by_its_name_in_any_case(void)
{
    int count = 0;
    for (int number = 0; pw_key(number) != NULL; number++) {
        char name[64];
        if (!name_of(number, name))
            continue;
        size_t size = strlen(name);
        ABOUT("%s", name);
        CHECK_INT(pw_field_number(name, size), number);
        for (unsigned turn = 0; turn < 3; turn++) { /* all upper case, then every second letter */
            char odd[64];
            for (size_t i = 0; i < size; i++)
                odd[i] = (char)(name[i] >= 'a' && (turn == 0 || (i + turn) % 2 == 0) ? name[i] - 32
                                                                                     : name[i]);
            CHECK_INT(pw_field_number(odd, size), number);
        }
        count++;
    }
    CHECK(count > 100);
}

static void a_name_that_resembles_a_known_one_is_not_found(void)
{
    for (int number = 0; pw_key(number) != NULL; number++) {
        char name[64], other[65];
        if (!name_of(number, name))
            continue;
        size_t size = strlen(name);
        for (size_t i = 0; i < size; i++) {
            memcpy(other, name, size + 1);
            ABOUT("%s at %zu", name, i);
            if (other[i] == '-') { /* "X_Forwarded_For" is not "X-Forwarded-For" */
                other[i] = '_';
                CHECK_INT(pw_field_number(other, size), PW_OTHER_NAME);
                other[i] = '\r'; /* | 32 makes it '-' */
                CHECK_INT(pw_field_number(other, size), PW_OTHER_NAME);
            }
            other[i] = '~';
            CHECK_INT(pw_field_number(other, size), PW_OTHER_NAME);
        }
        memcpy(other, name, size);
        other[size] = 'x';
        CHECK(pw_field_number(other, size + 1) != number);
        CHECK(pw_field_number(name, size - 1) != number);
    }
}

static void keys_that_are_not_fields_are_not_found(void)
{
    static const char *const none[] = {"request-method", "query-string", "remote-addr",
                                       "path-info",      "nonsense",     "x-"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        CHECK_INT(pw_field_number(none[i], strlen(none[i])), PW_OTHER_NAME);
    CHECK_INT(pw_field_number("", 0), PW_OTHER_NAME);
}

static void all_keys_differ_and_their_numbers_end(void)
{
    int count = 0;
    while (pw_key(count) != NULL)
        count++;
    CHECK(count < PW_OTHER_NAME);
    CHECK(pw_key(-1) == NULL);
    CHECK(pw_key(PW_OTHER_NAME) == NULL);
    for (int i = 0; i < count; i++)
        for (int k = 0; k < i; k++)
            CHECK(strcmp(pw_key(i), pw_key(k)) != 0);
    CHECK(strcmp(pw_key(PW_KEY_PATH), "PATH_INFO") == 0);
    CHECK(strcmp(pw_key(PW_KEY_CONTENT_TYPE), "CONTENT_TYPE") == 0);
    CHECK(strcmp(pw_key(PW_KEY_COOKIE), "HTTP_COOKIE") == 0);
}

static void a_token_has_tchar_only(void)
{
    static const char tchars[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                                 "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (int c = 0; c < 256; c++) {
        ABOUT("byte %d", c);
        CHECK(pw_is_tchar((unsigned char)c) == (c != 0 && strchr(tchars, c) != NULL));
    }
    CHECK(pw_is_token(tchars, sizeof tchars - 1));
    CHECK(!pw_is_token(tchars, sizeof tchars)); /* with its NUL */
    CHECK(!pw_is_token("", 0));
    CHECK(!pw_is_token("a b", 3));
}

static void text_is_compared_as_a_whole_and_without_case(void)
{
    CHECK(pw_equals("ChUnKeD", 7, "chunked"));
    CHECK(!pw_equals("chunke", 6, "chunked"));
    CHECK(!pw_equals("chunkedx", 8, "chunked"));
    CHECK(!pw_equals("chunked\0", 8, "chunked"));
    CHECK(!pw_equals("keep\ralive", 10, "keep-alive"));
    CHECK(pw_equals("", 0, ""));
}

int main(void)
{
    RUN(every_key_is_found_by_its_name_in_any_case);
    RUN(a_name_that_resembles_a_known_one_is_not_found);
    RUN(keys_that_are_not_fields_are_not_found);
    RUN(all_keys_differ_and_their_numbers_end);
    RUN(a_token_has_tchar_only);
    RUN(text_is_compared_as_a_whole_and_without_case);
    return check_end();
}
