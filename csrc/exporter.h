/* The thread that serves the page of the metrics: see pw_exporter_new in api.h. */
#ifndef PW_EXPORTER_H
#define PW_EXPORTER_H

#include "types.h"

#endif
