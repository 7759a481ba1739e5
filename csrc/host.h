/* The host and port in the Host field and in an absolute target. */
#ifndef PW_HOST_H
#define PW_HOST_H

#include "text.h"

/* Host = uri-host [ ":" port ] (RFC 9110 section 7.2) */
bool pw_is_host(pw_span host, bool may_be_empty);

#endif
