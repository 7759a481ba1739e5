/* The response to a request that the core refuses. */
#ifndef PW_ERROR_RESPONSE_H
#define PW_ERROR_RESPONSE_H

#include "clock.h"

/* Writes the whole response to a refused request. Returns its size. */
#define PW_REFUSAL_MOST 512
size_t pw_error_response(const pw_clock *clock, char *to, pw_error error, bool is_head);
int pw_error_status(pw_error error);

#endif
