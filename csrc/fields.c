/*
 * The environ keys that have a number. Python turns a byte with the number into a key object that
 * it already has, instead of decoding a name.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "fields.h"

typedef struct {
    const char *name; /* of the field, lower-case; NULL: the key belongs to no field */
    const char *key;
} pw_name;

/* The first rows are in the order of the enum in fields.h. */
static const pw_name names[] = {
    {"transfer-encoding", "HTTP_TRANSFER_ENCODING"},
    {NULL, "REQUEST_METHOD"},
    {NULL, "QUERY_STRING"},
    {NULL, "SERVER_PROTOCOL"},
    {NULL, "REQUEST_URI"},
    {NULL, "PATH_INFO"},
    {NULL, "REMOTE_ADDR"},
    {NULL, "REMOTE_PORT"},
    {"content-length", "CONTENT_LENGTH"},
    {"content-type", "CONTENT_TYPE"},
    {"host", "HTTP_HOST"},
    {"connection", "HTTP_CONNECTION"},
    {"expect", "HTTP_EXPECT"},
    {"upgrade", "HTTP_UPGRADE"},
    {"cookie", "HTTP_COOKIE"},
    {"forwarded", "HTTP_FORWARDED"},
    {"x-forwarded-for", "HTTP_X_FORWARDED_FOR"},
    {"x-forwarded-proto", "HTTP_X_FORWARDED_PROTO"},
    {"x-forwarded-host", "HTTP_X_FORWARDED_HOST"},
    {"x-forwarded-port", "HTTP_X_FORWARDED_PORT"},
    {"x-forwarded-prefix", "HTTP_X_FORWARDED_PREFIX"},
    {NULL, "picowsgi.peer"},
    {NULL, "picowsgi.peer_port"},
    {NULL, "wsgi.url_scheme"},
    {NULL, "HTTPS"},
    {NULL, "SERVER_NAME"},
    {NULL, "SERVER_PORT"},
    {NULL, "SCRIPT_NAME"},
    /* in any order */
    {"accept", "HTTP_ACCEPT"},
    {"accept-charset", "HTTP_ACCEPT_CHARSET"},
    {"accept-encoding", "HTTP_ACCEPT_ENCODING"},
    {"accept-language", "HTTP_ACCEPT_LANGUAGE"},
    {"access-control-request-headers", "HTTP_ACCESS_CONTROL_REQUEST_HEADERS"},
    {"access-control-request-method", "HTTP_ACCESS_CONTROL_REQUEST_METHOD"},
    {"authorization", "HTTP_AUTHORIZATION"},
    {"cache-control", "HTTP_CACHE_CONTROL"},
    {"cdn-loop", "HTTP_CDN_LOOP"},
    {"cf-connecting-ip", "HTTP_CF_CONNECTING_IP"},
    {"cf-ipcountry", "HTTP_CF_IPCOUNTRY"},
    {"cf-ray", "HTTP_CF_RAY"},
    {"cf-visitor", "HTTP_CF_VISITOR"},
    {"content-disposition", "HTTP_CONTENT_DISPOSITION"},
    {"content-encoding", "HTTP_CONTENT_ENCODING"},
    {"content-language", "HTTP_CONTENT_LANGUAGE"},
    {"content-location", "HTTP_CONTENT_LOCATION"},
    {"content-range", "HTTP_CONTENT_RANGE"},
    {"content-md5", "HTTP_CONTENT_MD5"},
    {"date", "HTTP_DATE"},
    {"depth", "HTTP_DEPTH"},
    {"destination", "HTTP_DESTINATION"},
    {"device-memory", "HTTP_DEVICE_MEMORY"},
    {"dnt", "HTTP_DNT"},
    {"downlink", "HTTP_DOWNLINK"},
    {"early-data", "HTTP_EARLY_DATA"},
    {"ect", "HTTP_ECT"},
    {"from", "HTTP_FROM"},
    {"idempotency-key", "HTTP_IDEMPOTENCY_KEY"},
    {"if", "HTTP_IF"},
    {"if-match", "HTTP_IF_MATCH"},
    {"if-modified-since", "HTTP_IF_MODIFIED_SINCE"},
    {"if-none-match", "HTTP_IF_NONE_MATCH"},
    {"if-range", "HTTP_IF_RANGE"},
    {"if-unmodified-since", "HTTP_IF_UNMODIFIED_SINCE"},
    {"keep-alive", "HTTP_KEEP_ALIVE"},
    {"last-event-id", "HTTP_LAST_EVENT_ID"},
    {"lock-token", "HTTP_LOCK_TOKEN"},
    {"max-forwards", "HTTP_MAX_FORWARDS"},
    {"origin", "HTTP_ORIGIN"},
    {"overwrite", "HTTP_OVERWRITE"},
    {"pragma", "HTTP_PRAGMA"},
    {"prefer", "HTTP_PREFER"},
    {"priority", "HTTP_PRIORITY"},
    {"proxy-authorization", "HTTP_PROXY_AUTHORIZATION"},
    {"proxy-connection", "HTTP_PROXY_CONNECTION"},
    {"purpose", "HTTP_PURPOSE"},
    {"range", "HTTP_RANGE"},
    {"referer", "HTTP_REFERER"},
    {"rtt", "HTTP_RTT"},
    {"save-data", "HTTP_SAVE_DATA"},
    {"sec-ch-prefers-color-scheme", "HTTP_SEC_CH_PREFERS_COLOR_SCHEME"},
    {"sec-ch-ua", "HTTP_SEC_CH_UA"},
    {"sec-ch-ua-arch", "HTTP_SEC_CH_UA_ARCH"},
    {"sec-ch-ua-full-version-list", "HTTP_SEC_CH_UA_FULL_VERSION_LIST"},
    {"sec-ch-ua-mobile", "HTTP_SEC_CH_UA_MOBILE"},
    {"sec-ch-ua-model", "HTTP_SEC_CH_UA_MODEL"},
    {"sec-ch-ua-platform", "HTTP_SEC_CH_UA_PLATFORM"},
    {"sec-ch-ua-platform-version", "HTTP_SEC_CH_UA_PLATFORM_VERSION"},
    {"sec-fetch-dest", "HTTP_SEC_FETCH_DEST"},
    {"sec-fetch-mode", "HTTP_SEC_FETCH_MODE"},
    {"sec-fetch-site", "HTTP_SEC_FETCH_SITE"},
    {"sec-fetch-user", "HTTP_SEC_FETCH_USER"},
    {"sec-gpc", "HTTP_SEC_GPC"},
    {"sec-purpose", "HTTP_SEC_PURPOSE"},
    {"sec-websocket-extensions", "HTTP_SEC_WEBSOCKET_EXTENSIONS"},
    {"sec-websocket-key", "HTTP_SEC_WEBSOCKET_KEY"},
    {"sec-websocket-protocol", "HTTP_SEC_WEBSOCKET_PROTOCOL"},
    {"sec-websocket-version", "HTTP_SEC_WEBSOCKET_VERSION"},
    {"soapaction", "HTTP_SOAPACTION"},
    {"te", "HTTP_TE"},
    {"timeout", "HTTP_TIMEOUT"},
    {"traceparent", "HTTP_TRACEPARENT"},
    {"tracestate", "HTTP_TRACESTATE"},
    {"trailer", "HTTP_TRAILER"},
    {"true-client-ip", "HTTP_TRUE_CLIENT_IP"},
    {"upgrade-insecure-requests", "HTTP_UPGRADE_INSECURE_REQUESTS"},
    {"user-agent", "HTTP_USER_AGENT"},
    {"via", "HTTP_VIA"},
    {"warning", "HTTP_WARNING"},
    {"x-amz-cf-id", "HTTP_X_AMZ_CF_ID"},
    {"x-amzn-trace-id", "HTTP_X_AMZN_TRACE_ID"},
    {"x-api-key", "HTTP_X_API_KEY"},
    {"x-b3-sampled", "HTTP_X_B3_SAMPLED"},
    {"x-b3-spanid", "HTTP_X_B3_SPANID"},
    {"x-b3-traceid", "HTTP_X_B3_TRACEID"},
    {"x-client-ip", "HTTP_X_CLIENT_IP"},
    {"x-cloud-trace-context", "HTTP_X_CLOUD_TRACE_CONTEXT"},
    {"x-correlation-id", "HTTP_X_CORRELATION_ID"},
    {"x-csrf-token", "HTTP_X_CSRF_TOKEN"},
    {"x-csrftoken", "HTTP_X_CSRFTOKEN"},
    {"x-forwarded-scheme", "HTTP_X_FORWARDED_SCHEME"},
    {"x-forwarded-server", "HTTP_X_FORWARDED_SERVER"},
    {"x-forwarded-ssl", "HTTP_X_FORWARDED_SSL"},
    {"x-http-method-override", "HTTP_X_HTTP_METHOD_OVERRIDE"},
    {"x-original-uri", "HTTP_X_ORIGINAL_URI"},
    {"x-real-ip", "HTTP_X_REAL_IP"},
    {"x-request-id", "HTTP_X_REQUEST_ID"},
    {"x-requested-with", "HTTP_X_REQUESTED_WITH"},
    {"x-scheme", "HTTP_X_SCHEME"},
    {"x-user-agent", "HTTP_X_USER_AGENT"},
    {"x-xsrf-token", "HTTP_X_XSRF_TOKEN"},
};

#define PW_NAME_COUNT (sizeof names / sizeof names[0])
_Static_assert(PW_NAME_COUNT < PW_OTHER_NAME, "a key's number is one byte");

#define PW_TABLE_SIZE 1024 /* a power of two, several times PW_NAME_COUNT */

/* Open addressing. table_make writes it once; afterwards it is only read. */
static uint8_t table[PW_TABLE_SIZE];
static uint8_t name_sizes[PW_NAME_COUNT];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;
static atomic_bool table_made; /* avoids the call of pthread_once for each field */

/* | 32 makes letters lower-case and does not change digits and '-'.
 * No other tchar becomes one of them. */
static unsigned name_hash(const char *name, size_t size)
{
    unsigned first = (unsigned char)name[0] | 32u;
    unsigned middle = (unsigned char)name[size / 2] | 32u;
    unsigned last = (unsigned char)name[size - 1] | 32u;
    return ((unsigned)size * 59u + first * 7u + middle * 131u + last * 31u) & (PW_TABLE_SIZE - 1);
}

static void table_make(void)
{
    memset(table, PW_OTHER_NAME, sizeof table);
    for (size_t i = 0; i < PW_NAME_COUNT; i++) {
        if (names[i].name == NULL)
            continue;
        size_t size = strlen(names[i].name);
        unsigned slot = name_hash(names[i].name, size);
        while (table[slot] != PW_OTHER_NAME)
            slot = (slot + 1) & (PW_TABLE_SIZE - 1);
        table[slot] = (uint8_t)i;
        name_sizes[i] = (uint8_t)size;
    }
    atomic_store_explicit(&table_made, true, memory_order_release);
}

bool pw_equals(const char *text, size_t size, const char *lower)
{
    size_t i = 0;
    for (; i < size && lower[i] != '\0'; i++) {
        char c = text[i];
        if (c >= 'A' && c <= 'Z')
            c = (char)(c | 32);
        if (c != lower[i])
            return false;
    }
    return i == size && lower[i] == '\0';
}

/* The bits in which a name may differ from a lower-case name: 32 for each letter. Of all characters
 * in names only letters have the bit 64. */
static uint64_t case_bits(uint64_t lower)
{
    return (lower & 0x4040404040404040) >> 1;
}

static bool same_eight(const char *name, const char *lower)
{
    uint64_t a, b;
    memcpy(&a, name, sizeof a);
    memcpy(&b, lower, sizeof b);
    return ((a ^ b) & ~case_bits(b)) == 0;
}

static bool same_four(const char *name, const char *lower)
{
    uint32_t a, b;
    memcpy(&a, name, sizeof a);
    memcpy(&b, lower, sizeof b);
    return ((a ^ b) & ~case_bits(b)) == 0;
}

/* Both names have this size. */
static bool same_name(const char *name, const char *lower, size_t size)
{
    size_t i = 0;
    for (; size - i >= 8; i += 8)
        if (!same_eight(name + i, lower + i))
            return false;
    if (size >= 8) /* the last eight bytes; some are compared again */
        return same_eight(name + size - 8, lower + size - 8);
    if (size >= 4)
        return same_four(name, lower) && same_four(name + size - 4, lower + size - 4);
    for (; i < size; i++)
        if ((unsigned char)(name[i] ^ lower[i]) & ~case_bits((unsigned char)lower[i]))
            return false;
    return true;
}

uint8_t pw_field_number(const char *name, size_t size)
{
    if (!atomic_load_explicit(&table_made, memory_order_acquire))
        pthread_once(&table_once, table_make);
    if (size == 0)
        return PW_OTHER_NAME;
    for (unsigned slot = name_hash(name, size); table[slot] != PW_OTHER_NAME;
         slot = (slot + 1) & (PW_TABLE_SIZE - 1)) {
        uint8_t number = table[slot];
        if (name_sizes[number] == size && same_name(name, names[number].name, size))
            return number;
    }
    return PW_OTHER_NAME;
}

const char *pw_key(int32_t number)
{
    return number >= 0 && (size_t)number < PW_NAME_COUNT ? names[number].key : NULL;
}

/* tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." / "^" / "_" / "`" / "|" / "~"
 *         / DIGIT / ALPHA, as one bit a byte */
static const uint32_t tchars[8] = {0, 0x03ff6cfa, 0xc7fffffe, 0x57ffffff, 0, 0, 0, 0};

bool pw_is_tchar(unsigned char c)
{
    return (tchars[c >> 5] >> (c & 31)) & 1;
}

bool pw_is_token(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!pw_is_tchar((unsigned char)text[i]))
            return false;
    return size > 0;
}
