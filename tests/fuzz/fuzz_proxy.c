/*
 * Invariant: any bytes are the beginning of a PROXY header, a header with clean addresses, or no
 * header, and the result does not depend on how they are split. A connection that begins with them
 * gives the same requests and answers for any split, and at its end nothing of it is left.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "outcome.h"
#include "proxy_protocol.h"
#include "site.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static test_site site; /* one for all inputs: each connection is freed at its end */

static void open_site(void)
{
    pw_settings settings = site_settings();
    settings.max_head_size = 1500;
    settings.proxy_protocol = 1;
    site_open(&site, &settings, AF_UNIX);
}

static void check_peer(const pw_peer *peer, int kind)
{
    uint8_t bytes[16];
    bool is_v6 = strchr(peer->address, ':') != NULL;
    REQUIRE(memchr(peer->address, '\0', sizeof peer->address) != NULL);
    REQUIRE(memchr(peer->port, '\0', sizeof peer->port) != NULL);
    REQUIRE(inet_pton(is_v6 ? AF_INET6 : AF_INET, peer->address, bytes) == 1);
    REQUIRE(kind != PW_NETWORK_V6 || is_v6);
    REQUIRE(atoi(peer->port) >= 0 && atoi(peer->port) <= 65535);
}

static void check_header(const pw_proxy_header *header, size_t size)
{
    REQUIRE(header->size > 0 && header->size <= size && header->size <= PW_PROXY_MOST);
    const pw_proxied *found = &header->addresses;
    if (!header->has_addresses || found->source.kind == PW_NETWORK_UNIX) {
        REQUIRE(found->client.address[0] == '\0' && found->server.address[0] == '\0');
        return;
    }
    check_peer(&found->client, found->source.kind);
    check_peer(&found->server, PW_NETWORK_V4);
}

/* Reads the first `size` bytes, in memory of exactly that size. */
static pw_parse read_part(const char *data, size_t size, pw_proxy_header *header,
                          pw_proxy_error *error)
{
    char *copy = malloc(size + (size == 0));
    REQUIRE(copy != NULL);
    memcpy(copy, data, size);
    pw_parse outcome = pw_proxy_read(copy, size, header, error);
    free(copy);
    return outcome;
}

static void check_parser(const char *data, const test_cuts *cuts)
{
    pw_proxy_header whole, part;
    pw_proxy_error error, part_error;
    const size_t size = cuts->at[cuts->count - 1];
    pw_parse outcome = read_part(data, size, &whole, &error);
    if (outcome == PW_PARSE_DONE)
        check_header(&whole, size);
    for (size_t i = 0; i < cuts->count; i++) {
        pw_parse split = read_part(data, cuts->at[i], &part, &part_error);
        if (split == PW_PARSE_MORE)
            continue;
        REQUIRE(split == outcome && part_error == error);
        REQUIRE(memcmp(&part, &whole, sizeof part) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static test_text whole, split; /* never freed: later inputs use them again */
    if (site.server == NULL)
        open_site();
    const char *data = (const char *)bytes;
    uint64_t random = cuts_hash(data, size);
    test_cuts cuts = cuts_none(size), drawn = cuts_drawn(&random, size);
    check_parser(data, &drawn);
    site_feed(&site, data, cuts.at, cuts.count, &whole);
    site_feed(&site, data, drawn.at, drawn.count, &split);
    REQUIRE(text_same(&whole, &split));
    REQUIRE(site.server->conn_count == 0);
    pw_incident unused;
    while (pw_incident_take(site.server, &unused) != 0)
        continue;
    return 0;
}
