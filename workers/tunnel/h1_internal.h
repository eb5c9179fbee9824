/* SPDX-License-Identifier: Apache-2.0 */
/* What h1_parse.c (lines, from bytes in any pieces) and h1_fields.c (what the fields of a head mean) share. */
#ifndef HERMES_TUNNEL_H1_INTERNAL_H
#define HERMES_TUNNEL_H1_INTERNAL_H

#include "workers/tunnel/h1_parse.h"

#define H1_NOMINATED 16u      /* field names in Connection */

struct span { const char *text; size_t n; };

/* What is collected while the fields of a head are read; spans point into its text. */
struct h1_reading {
	struct span host, encoding, upgrade, key, version, accept;
	unsigned hosts, lengths, encodings, keys, versions, accepts, upgrades;
	struct span nominated[H1_NOMINATED];
	unsigned n_nominated;
	bool keep_alive, connection_upgrade, te_trailers;
	const char *masque;           /* the upgrade asked for is one of UDP or IP proxying */
};

/* Nothing was read yet. */
void h1_reading_init(struct h1_reading *reading);
/* One line of a head or of trailers, without its CRLF. */
enum h1_result h1_field_line(struct h1_parser *parser, struct h1_reading *reading, const char *line, size_t length);
/* All lines were read: framing, host, upgrades. */
enum h1_result h1_fields_end(struct h1_parser *parser, const struct h1_reading *reading);
/* Returns H1_ERROR. */
enum h1_result h1_fail(struct h1_parser *parser, unsigned status, const char *why);

#endif
