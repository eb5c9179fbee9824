#include "supervisor/check.h"
#include "ipc/memfd.h"
#include "store/config.h"
#include "supervisor/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DOCUMENT_MAX (16u << 20)

struct check {
	const char *file;
	unsigned errors;
};

/* PEM is read by OpenSSL, which only tunnel links: that its first block is of the right kind can be told without. */
static void check_pem(struct check *c, const char *what, const char *path, const char *label)
{
	char *full = path ? files_resolve(c->file, path) : NULL;
	char *data = NULL;
	size_t length;
	if (!full)
		return;
	int fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int error = fd < 0 ? -errno : fd_read_all(fd, DOCUMENT_MAX, &data, &length);
	if (error) {
		fprintf(stderr, "%s: %s: cannot read %s: %s\n", c->file, what, full, strerror(-error));
		c->errors++;
	} else if (!strstr(data, "-----BEGIN ") || !strstr(data, label)) {
		fprintf(stderr, "%s: %s: %s holds no PEM block of a %s\n", c->file, what, full, label);
		c->errors++;
	}
	if (data)
		explicit_bzero(data, length);
	free(data);
	free(full);
	if (fd >= 0)
		close(fd);
}

static void check_credentials(struct check *c, const char *what, const char *certificate, const char *key,
                              const char *crl, const struct config_strs *authorities)
{
	char text[256];
	snprintf(text, sizeof(text), "%s.certificate", what);
	check_pem(c, text, certificate, "CERTIFICATE-----");
	snprintf(text, sizeof(text), "%s.key", what);
	check_pem(c, text, key, "PRIVATE KEY-----");
	snprintf(text, sizeof(text), "%s.crl", what);
	check_pem(c, text, crl, "X509 CRL-----");
	snprintf(text, sizeof(text), "%s.authorities", what);
	for (size_t i = 0; i < authorities->n; i++)
		check_pem(c, text, authorities->v[i], "CERTIFICATE-----");
}

static void check_tls(struct check *c, const char *kind, const char *name, const struct config_tls *tls)
{
	char what[256];
	snprintf(what, sizeof(what), "%s %s: tls", kind, name);
	if (tls->enabled)
		check_credentials(c, what, tls->certificate, tls->key, tls->crl, &tls->authorities);
}

static void check_files(struct check *c, const struct config *config)
{
	const struct config_identity *id = &config->identity;
	check_credentials(c, "identity", id->certificate, id->key, id->crl, &id->authorities);
	for (size_t i = 0; i < config->n_listeners; i++)
		check_tls(c, "listener", config->listeners[i].name, &config->listeners[i].tls);
	for (size_t i = 0; i < config->n_clusters; i++)
		check_tls(c, "cluster", config->clusters[i].name, &config->clusters[i].tls);
}

static int read_document(const char *file, char **text, size_t *length)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int error = fd < 0 ? -errno : fd_read_all(fd, DOCUMENT_MAX, text, length);
	if (fd >= 0)
		close(fd);
	if (error)
		fprintf(stderr, "%s: cannot be read: %s\n", file, strerror(-error));
	return error;
}

int check_configuration(const char *file)
{
	struct config_report report = {0};
	struct check check = {.file = file};
	char *text = NULL;
	size_t length = 0;
	if (read_document(file, &text, &length))
		return 1;
	struct config *config = config_parse(file, text, length, &report);
	for (size_t i = 0; i < report.n_warnings; i++)
		fprintf(stderr, "%s (warning)\n", report.warnings[i]);
	for (size_t i = 0; i < report.n_errors; i++)
		fprintf(stderr, "%s\n", report.errors[i]);
	if (config)
		check_files(&check, config);
	bool ok = config && !check.errors && !report.n_errors;
	if (ok)
		printf("%s: ok\n", file);
	config_free(config);
	config_report_free(&report);
	free(text);
	return ok ? 0 : 1;
}
