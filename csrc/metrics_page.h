/* The page of the metrics, in the text format 0.0.4 of Prometheus. */
#ifndef PW_METRICS_PAGE_H
#define PW_METRICS_PAGE_H

#include "meter.h"
#include "text.h"

/* A page is always smaller than this. */
#define PW_PAGE_MOST 65536

/*
 * Adds the page to a text that has room for PW_PAGE_MOST more bytes. `info`: the labels of
 * picowsgi_info, at most PW_INFO_MOST bytes. `started`: when the server was started, in milliseconds
 * since 1970.
 */
#define PW_INFO_MOST 1024
void pw_metrics_page(pw_metrics *metrics, const char *info, int64_t started, pw_text *to);

#endif
