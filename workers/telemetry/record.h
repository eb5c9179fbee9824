/* The forms of a flow's record in an access log. */
#ifndef HERMES_TELEMETRY_RECORD_H
#define HERMES_TELEMETRY_RECORD_H

#include "ipc/messages.h"
#include "workers/telemetry/text.h"

/* Each replaces what is in out. One line of key=value, newline at its end; what is unknown is left out. */
void record_text(const struct ipc_flow_record *record, struct text *out);
/* One line of JSON as packaging/schema/access-log.schema.json describes it. */
void record_json(const struct ipc_flow_record *record, struct text *out);
/* One entry in the journal's native form: MESSAGE is the text or JSON line, and the fields stand beside it. */
void record_journal(const struct ipc_flow_record *record, bool json, struct text *out);

#endif
