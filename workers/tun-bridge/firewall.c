/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tun-bridge/firewall.h"
#include "ipc/log.h"
#include "workers/tun-bridge/capture.h"
#include "workers/tun-bridge/nat.h"

#include <linux/netlink.h>
#include <nftables/libnftables.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct firewall {
	struct nft_ctx *nft;
	char table[24];
	char *applied;       /* NULL: not known what is there */
};

/* libnftables ends the process where it gets no socket. */
static bool has_netfilter(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	if (fd < 0)
		return false;
	close(fd);
	return true;
}

struct firewall *firewall_new(unsigned slot)
{
	struct firewall *f = has_netfilter() ? calloc(1, sizeof(*f)) : NULL;
	if (!f)
		return NULL;
	if (slot)
		snprintf(f->table, sizeof(f->table), "hermes%u", slot);
	else
		snprintf(f->table, sizeof(f->table), "hermes");
	f->nft = nft_ctx_new(NFT_CTX_DEFAULT);
	if (f->nft && nft_ctx_buffer_error(f->nft) == 0 && nft_ctx_buffer_output(f->nft) == 0)
		return f;
	firewall_free(f);
	return NULL;
}

void firewall_free(struct firewall *f)
{
	if (!f)
		return;
	if (f->nft)
		nft_ctx_free(f->nft);
	free(f->applied);
	free(f);
}

char *firewall_chains(const struct plan *plan, const struct config *config)
{
	char *text = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);
	if (!out)
		return NULL;
	if (config) {
		nat_chains(config, out);
		capture_chains(plan, config, out);
	}
	if (fclose(out) == 0)
		return text;
	free(text);
	return NULL;
}

/* 0, or -1 and the first line of what nftables says. */
static int run(struct firewall *f, const char *commands, char *error, size_t size)
{
	if (nft_run_cmd_from_buffer(f->nft, commands) == 0)
		return 0;
	const char *said = nft_ctx_get_error_buffer(f->nft);
	snprintf(error, size, "%.*s", said ? (int)strcspn(said, "\n") : 0, said ? said : "");
	return -1;
}

int firewall_check(struct firewall *f, const char *chains, char *error, size_t size)
{
	char *commands = NULL, why[256];
	if (!*chains)
		return 0;
	if (!f) {
		snprintf(error, size, "this kernel has no nftables");
		return -1;
	}
	if (asprintf(&commands, "table inet %s-check {\nflags dormant\n%s}\ndelete table inet %s-check\n", f->table, chains,
	             f->table) < 0)
		return -1;
	int result = run(f, commands, why, sizeof(why));
	free(commands);
	if (result)
		snprintf(error, size, "nftables does not take the rules (are the kernel's modules there, and CAP_NET_ADMIN?): %s", why);
	return result;
}

bool firewall_lost(struct firewall *f)
{
	char command[64], why[256];
	if (!f || !f->applied || !*f->applied)
		return false;
	snprintf(command, sizeof(command), "list table inet %s\n", f->table);
	if (run(f, command, why, sizeof(why)) == 0)
		return false;
	free(f->applied);
	f->applied = NULL;
	return true;
}

void firewall_apply(struct firewall *f, const char *chains)
{
	char *commands = NULL, why[256];
	if (!f || (f->applied && strcmp(f->applied, chains) == 0))
		return;
	/* it must exist to be deleted */
	int n = *chains ? asprintf(&commands, "table inet %s\ndelete table inet %s\ntable inet %s {\n%s}\n", f->table, f->table,
	                           f->table, chains)
	                : asprintf(&commands, "table inet %s\ndelete table inet %s\n", f->table, f->table);
	free(f->applied);
	f->applied = NULL;
	if (n >= 0 && run(f, commands, why, sizeof(why)) == 0)
		f->applied = strdup(chains);
	else if (*chains)
		log_error("packet filter not set", "table=%s error=%s", f->table, log_value(n < 0 ? "out of memory" : why));
	else
		log_debug("packet filter not cleared", "table=%s error=%s", f->table, log_value(n < 0 ? "out of memory" : why));
	if (n >= 0)
		free(commands);
}
