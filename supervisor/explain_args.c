#include "supervisor/explain_args.h"
#include "store/config.h"
#include "supervisor/explain_packet.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static char *own(struct explain_args *a, char *text)
{
	if (!text || a->n_owned == sizeof(a->owned) / sizeof(*a->owned)) {
		free(text);
		return NULL;
	}
	for (char *p = text; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	return a->owned[a->n_owned++] = text;
}

void explain_args_clear(struct explain_args *a)
{
	while (a->n_owned)
		free(a->owned[--a->n_owned]);
}

/* A later header of the same name takes the place of the earlier: that is what add_headers does. */
static int set_header(struct explain_args *a, const char *name, const char *value)
{
	struct ipc_pairs *h = &a->question.headers;
	for (size_t i = 0; i < h->n; i++)
		if (strcasecmp(h->v[i].name, name) == 0) {
			h->v[i].value = value;
			return 0;
		}
	if (h->n == EXPLAIN_HEADERS_MAX)
		return -1;
	h->v[h->n++] = (struct ipc_pair){name, value};
	return 0;
}

static const char *get_header(const struct explain_args *a, const char *name)
{
	const struct ipc_pairs *h = &a->question.headers;
	for (size_t i = 0; i < h->n; i++)
		if (strcasecmp(h->v[i].name, name) == 0)
			return h->v[i].value;
	return NULL;
}

static void remove_header(struct explain_args *a, const char *name)
{
	struct ipc_pairs *h = &a->question.headers;
	for (size_t i = 0; i < h->n; i++)
		if (strcasecmp(h->v[i].name, name) == 0)
			h->v[i--] = h->v[--h->n];
}

/* "name=value" or "name: value" */
static int parse_header(struct explain_args *a, const char *text)
{
	size_t length = strcspn(text, "=:");
	if (!length || !text[length])
		return -1;
	const char *value = text + length + 1;
	while (*value == ' ')
		value++;
	const char *name = own(a, strndup(text, length));
	return name ? set_header(a, name, value) : -1;
}

/* "http://authority/path", or what CONNECT names: "host:port" */
static int parse_target(struct explain_args *a, const char *text)
{
	struct ipc_question *q = &a->question;
	const char *sep = strstr(text, "://");
	const char *rest = sep ? sep + 3 : text;
	const char *slash = strchr(rest, '/');
	if (sep)
		q->scheme = own(a, strndup(text, (size_t)(sep - text)));
	q->authority = own(a, slash ? strndup(rest, (size_t)(slash - rest)) : strdup(rest));
	if (slash)
		q->path = slash;
	else if (sep)
		q->path = "/";
	return q->authority && *q->authority ? 0 : -1;
}

static int parse_time(struct explain_args *a, const char *text)
{
	char *end;
	a->question.now = strtoll(text, &end, 10);
	return *text && !*end ? 0 : -1;
}

/* Options that are just a field of the question. */
static const char **field(struct ipc_question *q, const char *option)
{
	const struct { const char *name; const char **field; } fields[] = {
		{"--listener", &q->listener}, {"--user", &q->user},         {"--peer", &q->peer},
		{"--method", &q->method},     {"--protocol", &q->protocol}, {"--scheme", &q->scheme},
		{"--path", &q->path},         {"--source", &q->source},
	};
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
		if (strcmp(fields[i].name, option) == 0)
			return fields[i].field;
	return NULL;
}

static const char *expected(const char *option)
{
	static const char *const forms[][2] = {
		{"--time", "seconds since 1970"}, {"--header", "NAME=VALUE"}, {"--ip-port", "0 to 65535"},
		{"--ip-protocol", "tcp, udp, icmp, icmpv6, sctp or a number up to 255"},
	};
	for (size_t i = 0; i < sizeof(forms) / sizeof(*forms); i++)
		if (strcmp(forms[i][0], option) == 0)
			return forms[i][1];
	return strncmp(option, "--ip-", 5) == 0 ? "an address" : "a text";
}

static int parse_option(struct explain_args *a, const char *option, const char *value, char *error, size_t size)
{
	const char **where = field(&a->question, option);
	int result = 0;
	if (!value) {
		snprintf(error, size, "%s: a value is missing", option);
		return -1;
	}
	if (where)
		*where = value;
	else if (strcmp(option, "--header") == 0)
		result = parse_header(a, value);
	else if (strcmp(option, "--time") == 0)
		result = parse_time(a, value);
	else if (strcmp(option, "--authority") == 0)
		result = (a->question.authority = own(a, strdup(value))) ? 0 : -1;
	else
		result = explain_packet_option(a, option, value);
	if (result > 0)
		snprintf(error, size, "%s: unknown option; known are --listener, --user, --peer, --method, --protocol, --scheme, "
		         "--authority, --path, --source, --header, --time, --ip-protocol, --ip-source, --ip-destination, --ip-port",
		         option);
	else if (result)
		snprintf(error, size, "%s %s: not valid; expected %s", option, value, expected(option));
	return result ? -1 : 0;
}

/* What the listener does to a request before anybody is asked. */
static void pass_listener(struct explain_args *a, const struct config *config, const struct config_listener *l)
{
	if (!l->trust_headers && l->accept != CONFIG_OVERLAY)
		for (size_t i = 0; i < config->internal_headers.n; i++)
			remove_header(a, config->internal_headers.v[i]);
	for (size_t i = 0; i < l->remove_headers.n; i++)
		remove_header(a, l->remove_headers.v[i]);
	for (size_t i = 0; i < l->add_headers.n; i++)
		set_header(a, l->add_headers.v[i].name, l->add_headers.v[i].value);
	if (!a->question.user)
		a->question.user = get_header(a, "user");
	if (l->accept == CONFIG_TCP && l->target.text && !a->question.authority) {
		a->question.method = "CONNECT";
		a->question.authority = own(a, strdup(l->target.text));
	}
}

/* As a device's network asks: its headers are added, and nothing comes from outside. */
static int pass_device(struct explain_args *a, const struct config_tunnel *device, char *error, size_t size)
{
	const struct config_network *n;
	if (explain_pass_device(a, device, a->network, &n, error, size))
		return -1;
	for (size_t i = 0; i < n->add_headers.n; i++)
		set_header(a, n->add_headers.v[i].name, n->add_headers.v[i].value);
	if (!a->question.user)
		a->question.user = get_header(a, "user");
	return 0;
}

/* What listener or device does; one that there is not is an error. */
static int pass_entrance(struct explain_args *a, const struct config *config, char *error, size_t size)
{
	const char *name = a->question.listener;
	const struct config_listener *listener = name && config ? config_listener(config, name) : NULL;
	const struct config_tunnel *device = name && config && !listener ? explain_device(config, name) : NULL;
	if (device)
		return pass_device(a, device, error, size);
	if (listener)
		pass_listener(a, config, listener);
	if (!name || !config || listener)
		return 0;
	snprintf(error, size, "--listener %s: no listener of that name; `hermes-admin listeners list` shows them", name);
	return -1;
}

static void fill_defaults(struct explain_args *a)
{
	struct ipc_question *q = &a->question;
	bool tunnel = q->authority && !q->scheme && !q->path;
	if (!q->method)
		q->method = tunnel ? "CONNECT" : "GET";
	if (!q->scheme && strcmp(q->method, "CONNECT"))
		q->scheme = "http";
	if (!q->path && strcmp(q->method, "CONNECT"))
		q->path = "/";
	if (strcmp(q->method, "CONNECT") == 0 && !q->protocol)
		q->path = q->scheme = NULL;
	if (!q->now)
		q->now = time(NULL);
	if (!q->source)
		q->source = "127.0.0.1";
}

int explain_parse(const struct ipc_strs *args, const struct config *config, struct explain_args *a, char *error,
                  size_t size)
{
	*a = (struct explain_args){0};
	a->question.headers.v = a->headers;
	for (size_t i = 0; i < args->n; i++) {
		const char *word = args->v[i];
		bool option = strncmp(word, "--", 2) == 0;
		if (option ? parse_option(a, word, i + 1 < args->n ? args->v[++i] : NULL, error, size) : parse_target(a, word)) {
			if (!option)
				snprintf(error, size, "%s: expected a URL or HOST:PORT", word);
			goto failed;
		}
	}
	if (explain_packet_check(a, error, size) || pass_entrance(a, config, error, size))
		goto failed;
	if (!a->question.authority) {
		snprintf(error, size, "what is asked for? give a URL, HOST:PORT, or --authority");
		goto failed;
	}
	fill_defaults(a);
	return 0;
failed:
	explain_args_clear(a);
	return -1;
}
