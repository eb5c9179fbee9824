/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/keeper/ops.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct call {
	struct ops *ops;
	const struct ipc_strs *args;
	const char *text;
	size_t length;
	char **answer, *why;
};

static int fail(const struct call *c, const char *what, const char *reason)
{
	snprintf(c->why, PKI_WHY, "%s%s%s", what, reason ? ": " : "", reason ? reason : "");
	return -1;
}

static int read_file(const struct call *c, const char *name, char **text)
{
	int error = keys_read(&c->ops->keys, name, text);
	return error ? fail(c, name, error == -ENOENT ? "not there: `hermes-admin controller init` makes it" : strerror(-error)) : 0;
}

/* --- for this node --------------------------------------------------------------------------------------------------- */

static int op_csr(const struct call *c)
{
	char *key = NULL;
	if (!c->ops->node)
		return fail(c, "no configuration yet", NULL);
	if (pki_make_key(&key, c->why))
		return -1;
	if (pki_make_request(key, c->ops->node, c->answer, c->why)) {
		pki_wipe(key);
		return -1;
	}
	pki_wipe(c->ops->pending);
	c->ops->pending = key;
	return 0;
}

/* What peers would not believe does not replace what they do. */
static int op_install(const struct call *c)
{
	struct ops *ops = c->ops;
	char *authorities = NULL;
	if (!ops->pending || !ops->node || !pki_matches(ops->pending, c->text))
		return fail(c, "the certificate is for none of the keys that a request was made of", NULL);
	if (read_file(c, "authorities.crt", &authorities))
		return -1;
	int result = pki_check_certificate(c->text, authorities, ops->domain, ops->node, c->why);
	free(authorities);
	if (result)
		return -1;
	int error = keys_install(&ops->keys, ops->pending, c->text);
	if (error)
		return fail(c, "the certificate could not be written", strerror(-error));
	pki_wipe(ops->pending);
	ops->pending = NULL;
	ops->changed = true;
	*c->answer = strdup("");
	return 0;
}

/* --- for the domain -------------------------------------------------------------------------------------------------- */

uint64_t ops_seconds(const char *days)
{
	char *end;
	errno = 0;
	unsigned long n = days && *days >= '0' && *days <= '9' ? strtoul(days, &end, 10) : 0;
	if (!n || errno || n > 1000000)
		return 0;
	return !strcmp(end, "s") ? n : *end ? 0 : n * (uint64_t)PKI_DAY;
}

static bool flagged(const char *flags, const char *flag)
{
	size_t n = strlen(flag);
	for (const char *at = flags; at && *at; at += strcspn(at, ","), at += *at == ',')
		if (!strncmp(at, flag, n) && (at[n] == ',' || !at[n]))
			return true;
	return false;
}

static int op_certify(const struct call *c)
{
	char *key = NULL, *ca = NULL, *certificate = NULL, serial[PKI_SERIAL_TEXT];
	int result = -1;
	if (c->args->n < 2 || !c->ops->domain)
		return fail(c, "certify takes a node, days and flags", NULL);
	struct pki_subject subject = {.domain = c->ops->domain, .node = c->args->v[0], .seconds = ops_seconds(c->args->v[1]),
	                              .controller = c->args->n > 2 && flagged(c->args->v[2], "controller")};
	if (!read_file(c, "ca.key", &key) && !read_file(c, "ca.crt", &ca))
		result = pki_certify(key, ca, &subject, c->text, &certificate, serial, c->why);
	if (!result && asprintf(c->answer, "serial %s\n%s", serial, certificate) < 0) {
		*c->answer = NULL;
		result = fail(c, "out of memory", NULL);
	}
	pki_wipe(key);
	free(ca);
	free(certificate);
	return result;
}

static int op_sign(const struct call *c)
{
	char *key = NULL;
	int result = read_file(c, "domain.key", &key);
	if (!result)
		result = pki_sign(key, c->text, c->length, c->answer, c->why);
	pki_wipe(key);
	return result;
}

static int op_authorities(const struct call *c)
{
	return read_file(c, "ca.crt", c->answer);
}

static int op_public(const struct call *c)
{
	if (read_file(c, "domain.pub", c->answer))
		return -1;
	(*c->answer)[strcspn(*c->answer, "\r\n")] = '\0';
	return 0;
}

/* Who may ask what: anything else is refused. */
static const struct {
	const char *op;
	enum ipc_role asker;
	int (*run)(const struct call *call);
} table[] = {
	{"csr", IPC_CONFIG_SYNC, op_csr},
	{"install", IPC_CONFIG_SYNC, op_install},
	{"certify", IPC_CONTROLLER, op_certify},
	{"sign", IPC_CONTROLLER, op_sign},
	{"authorities", IPC_CONTROLLER, op_authorities},
	{"public", IPC_CONTROLLER, op_public},
};

int ops_run(struct ops *ops, enum ipc_role asker, const char *op, const struct ipc_strs *args, const char *text, size_t length,
            char **answer, char why[static PKI_WHY])
{
	const struct call call = {ops, args, text, length, answer, why};
	*answer = NULL;
	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++)
		if (op && !strcmp(table[i].op, op) && table[i].asker == asker)
			return table[i].run(&call);
	snprintf(why, PKI_WHY, "no such operation");
	return -1;
}

void ops_set_identity(struct ops *ops, const char *domain, const char *node)
{
	free(ops->domain);
	free(ops->node);
	ops->domain = domain ? strdup(domain) : NULL;
	ops->node = node ? strdup(node) : NULL;
}

void ops_close(struct ops *ops)
{
	ops_set_identity(ops, NULL, NULL);
	pki_wipe(ops->pending);
	ops->pending = NULL;
	keys_close(&ops->keys);
}
