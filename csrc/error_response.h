/* What a client is told whose request is refused. */
#ifndef PW_ERROR_RESPONSE_H
#define PW_ERROR_RESPONSE_H

#include "clock.h"

/* The whole answer to a refused request; returns its size. */
#define PW_REFUSAL_MOST 512
size_t pw_error_response(const pw_clock *clock, char *to, pw_error error, bool is_head);
int pw_error_status(pw_error error);

#endif
