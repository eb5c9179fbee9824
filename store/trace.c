/* SPDX-License-Identifier: Apache-2.0 */
#include "store/trace.h"

#include <stdarg.h>
#include <stdio.h>

#define LONGEST 256

void trace_reset(struct trace *trace)
{
	trace->n = trace->used = 0;
	trace->full = false;
}

void trace_add(struct trace *trace, const char *fmt, ...)
{
	va_list list;

	if (!trace || trace->full)
		return;
	if (trace->n == TRACE_MAX - 1 || sizeof(trace->text) - trace->used < 2 * LONGEST) {
		trace->v[trace->n++] = "... and more that is not shown";
		trace->full = true;
		return;
	}
	char *at = trace->text + trace->used;
	va_start(list, fmt);
	int n = vsnprintf(at, LONGEST, fmt, list);
	va_end(list);
	if (n < 0)
		return;
	if (n >= LONGEST)
		n = LONGEST - 1;
	trace->v[trace->n++] = at;
	trace->used += (size_t)n + 1;
}
