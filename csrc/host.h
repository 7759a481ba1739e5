/* Host, and the authority of a target: who is asked. */
#ifndef PW_HOST_H
#define PW_HOST_H

#include "text.h"

/* Host = uri-host [ ":" port ] (RFC 9110 section 7.2). */
bool pw_is_host(pw_span host, bool may_be_empty);

#endif
