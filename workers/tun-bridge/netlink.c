/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tun-bridge/netlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/netconf.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct netlink {
	struct nl_sock *socket;
};

/* Where an answer goes while it is awaited. */
struct answer {
	void (*take)(struct nlmsghdr *header, void *arg);
	void *arg;
	bool done;
	int error;
};

/* --- sets ------------------------------------------------------------------------------------------------------------ */

void net_items_add(struct net_items *items, const struct net_item *item)
{
	if (items->n == items->size) {
		size_t size = items->size ? items->size * 2 : 16;
		struct net_item *grown = realloc(items->v, size * sizeof(*grown));
		if (!grown) {
			items->failed = true;
			return;
		}
		items->v = grown;
		items->size = size;
	}
	memcpy(&items->v[items->n++], item, sizeof(*item));
}

bool net_items_has(const struct net_items *items, const struct net_item *item)
{
	for (size_t i = 0; i < items->n; i++)
		if (memcmp(&items->v[i], item, sizeof(*item)) == 0)
			return true;
	return false;
}

void net_items_clear(struct net_items *items)
{
	free(items->v);
	*items = (struct net_items){0};
}

/* --- requests -------------------------------------------------------------------------------------------------------- */

struct netlink *netlink_new(void)
{
	struct netlink *nl = calloc(1, sizeof(*nl));
	if (!nl)
		return NULL;
	nl->socket = nl_socket_alloc();
	if (nl->socket && nl_connect(nl->socket, NETLINK_ROUTE) == 0) {
		/* dumps of one table only, beside which a machine may have a million routes; kernels before 4.20 give all */
		const int one = 1;
		(void)setsockopt(nl_socket_get_fd(nl->socket), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &one, sizeof(one));
		return nl;
	}
	netlink_free(nl);
	errno = EPROTONOSUPPORT;
	return NULL;
}

void netlink_free(struct netlink *nl)
{
	if (!nl)
		return;
	nl_socket_free(nl->socket);
	free(nl);
}

static int on_valid(struct nl_msg *message, void *arg)
{
	struct answer *a = arg;
	if (a->take)
		a->take(nlmsg_hdr(message), a->arg);
	return NL_OK;
}

static int on_end(struct nl_msg *message, void *arg)
{
	(void)message;
	((struct answer *)arg)->done = true;
	return NL_STOP;
}

static int on_error(struct sockaddr_nl *address, struct nlmsgerr *error, void *arg)
{
	struct answer *a = arg;
	(void)address;
	a->error = error->error;
	a->done = true;
	return NL_STOP;
}

/* Sends and frees the message, and waits for the kernel's answer; it answers within the call. */
static int ask(struct netlink *nl, struct nl_msg *message, void (*take)(struct nlmsghdr *, void *), void *arg)
{
	struct answer a = {.take = take, .arg = arg};
	struct nl_cb *cb = message ? nl_cb_alloc(NL_CB_DEFAULT) : NULL;
	int result = cb ? 0 : -NLE_NOMEM;
	if (cb) {
		nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, on_valid, &a);
		nl_cb_set(cb, NL_CB_ACK, NL_CB_CUSTOM, on_end, &a);
		nl_cb_set(cb, NL_CB_FINISH, NL_CB_CUSTOM, on_end, &a);
		nl_cb_err(cb, NL_CB_CUSTOM, on_error, &a);
		result = nl_send_auto(nl->socket, message);
		while (result >= 0 && !a.done)
			result = nl_recvmsgs(nl->socket, cb);
		nl_cb_put(cb);
	}
	nlmsg_free(message);
	return a.error ? a.error : result >= 0 || a.done ? 0 : result == -NLE_NOMEM ? -ENOMEM : -EIO;
}

static struct nl_msg *message_new(int type, int flags, void *header, size_t size)
{
	struct nl_msg *m = nlmsg_alloc_simple(type, flags);
	if (m && nlmsg_append(m, header, size, NLMSG_ALIGNTO)) {
		nlmsg_free(m);
		m = NULL;
	}
	return m;
}

static size_t address_size(int family)
{
	return family == AF_INET ? 4 : 16;
}

/* --- links ----------------------------------------------------------------------------------------------------------- */

static void take_link(struct nlmsghdr *header, void *arg)
{
	struct net_link *out = arg;
	struct nlattr *attrs[IFLA_MAX + 1];
	const struct ifinfomsg *info = nlmsg_data(header);
	struct rtnl_link_stats64 stats = {0};
	if (header->nlmsg_type != RTM_NEWLINK || nlmsg_parse(header, sizeof(*info), attrs, IFLA_MAX, NULL))
		return;
	*out = (struct net_link){.index = (uint32_t)info->ifi_index, .up = info->ifi_flags & IFF_UP};
	if (attrs[IFLA_MTU])
		out->mtu = nla_get_u32(attrs[IFLA_MTU]);
	if (attrs[IFLA_STATS64])
		nla_memcpy(&stats, attrs[IFLA_STATS64], sizeof(stats));
	out->in_packets = stats.rx_packets;
	out->in_bytes = stats.rx_bytes;
	out->in_dropped = stats.rx_dropped;
	out->out_packets = stats.tx_packets;
	out->out_bytes = stats.tx_bytes;
	out->out_dropped = stats.tx_dropped;
}

int netlink_link(struct netlink *nl, const char *name, struct net_link *out)
{
	struct ifinfomsg info = {.ifi_family = AF_UNSPEC};
	struct nl_msg *m = message_new(RTM_GETLINK, 0, &info, sizeof(info));
	*out = (struct net_link){0};
	if (m && nla_put_string(m, IFLA_IFNAME, name)) {
		nlmsg_free(m);
		m = NULL;
	}
	int error = ask(nl, m, take_link, out);
	return error ? error : out->index ? 0 : -ENODEV;
}

int netlink_link_quiet(struct netlink *nl, uint32_t index)
{
	struct ifinfomsg info = {.ifi_family = AF_UNSPEC, .ifi_index = (int)index};
	struct nl_msg *m = message_new(RTM_NEWLINK, 0, &info, sizeof(info));
	struct nlattr *outer = m ? nla_nest_start(m, IFLA_AF_SPEC) : NULL;
	struct nlattr *inner = outer ? nla_nest_start(m, AF_INET6) : NULL;
	if (!inner || nla_put_u8(m, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE)) {
		nlmsg_free(m);
		return -ENOMEM;
	}
	nla_nest_end(m, inner);
	nla_nest_end(m, outer);
	int error = ask(nl, m, NULL, NULL);
	return error == -EAFNOSUPPORT || error == -EOPNOTSUPP ? 0 : error;
}

int netlink_link_mtu(struct netlink *nl, uint32_t index, uint32_t mtu)
{
	struct ifinfomsg info = {.ifi_family = AF_UNSPEC, .ifi_index = (int)index};
	struct nl_msg *m = message_new(RTM_NEWLINK, 0, &info, sizeof(info));
	if (m && nla_put_u32(m, IFLA_MTU, mtu)) {
		nlmsg_free(m);
		m = NULL;
	}
	return ask(nl, m, NULL, NULL);
}

int netlink_link_up(struct netlink *nl, uint32_t index)
{
	struct ifinfomsg info = {.ifi_family = AF_UNSPEC, .ifi_index = (int)index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
	return ask(nl, message_new(RTM_NEWLINK, 0, &info, sizeof(info)), NULL, NULL);
}

/* --- what there is --------------------------------------------------------------------------------------------------- */

struct dump {
	struct net_items *out;
	uint32_t device, low, high;
	int family;
};

static void put_address(struct net_item *item, const struct nlattr *attribute)
{
	if (attribute)
		nla_memcpy(item->address, attribute, (int)address_size(item->family));
}

static void take_address(struct nlmsghdr *header, void *arg)
{
	struct dump *d = arg;
	struct nlattr *attrs[IFA_PROTO + 1];
	const struct ifaddrmsg *info = nlmsg_data(header);
	if (header->nlmsg_type != RTM_NEWADDR || nlmsg_parse(header, sizeof(*info), attrs, IFA_PROTO, NULL))
		return;
	struct nlattr *address = attrs[IFA_LOCAL] ? attrs[IFA_LOCAL] : attrs[IFA_ADDRESS];
	bool known = info->ifa_family == AF_INET || info->ifa_family == AF_INET6;
	/* an administrator's own stay; so does all where the kernel does not say whose (before 5.18) */
	bool ours = attrs[IFA_PROTO] && nla_get_u8(attrs[IFA_PROTO]) == NETLINK_OURS;
	if (info->ifa_index != d->device || !known || !ours || !address || info->ifa_scope == RT_SCOPE_LINK)
		return;
	struct net_item item;
	memset(&item, 0, sizeof(item));
	item.kind = NET_ADDRESS;
	item.family = info->ifa_family;
	item.bits = info->ifa_prefixlen;
	item.device = d->device;
	put_address(&item, address);
	net_items_add(d->out, &item);
}

static void take_route(struct nlmsghdr *header, void *arg)
{
	struct dump *d = arg;
	struct nlattr *attrs[RTA_MAX + 1];
	const struct rtmsg *info = nlmsg_data(header);
	if (header->nlmsg_type != RTM_NEWROUTE || nlmsg_parse(header, sizeof(*info), attrs, RTA_MAX, NULL))
		return;
	uint32_t table = attrs[RTA_TABLE] ? nla_get_u32(attrs[RTA_TABLE]) : info->rtm_table;
	if (info->rtm_protocol != NETLINK_OURS || info->rtm_family != d->family || table < d->low || table > d->high)
		return;
	struct net_item item;
	memset(&item, 0, sizeof(item));
	item.kind = NET_ROUTE;
	item.family = info->rtm_family;
	item.type = info->rtm_type;
	item.bits = info->rtm_dst_len;
	item.table = table;
	/* IPv6 says of a route without a device that it is on lo */
	if (attrs[RTA_OIF] && item.type != RTN_THROW)
		item.device = nla_get_u32(attrs[RTA_OIF]);
	put_address(&item, attrs[RTA_DST]);
	net_items_add(d->out, &item);
}

static void take_rule(struct nlmsghdr *header, void *arg)
{
	struct dump *d = arg;
	struct nlattr *attrs[FRA_MAX + 1];
	struct fib_rule_uid_range range = {0};
	const struct fib_rule_hdr *info = nlmsg_data(header);
	if (header->nlmsg_type != RTM_NEWRULE || nlmsg_parse(header, sizeof(*info), attrs, FRA_MAX, NULL))
		return;
	uint32_t priority = attrs[FRA_PRIORITY] ? nla_get_u32(attrs[FRA_PRIORITY]) : 0;
	bool ours = attrs[FRA_PROTOCOL] && nla_get_u8(attrs[FRA_PROTOCOL]) == NETLINK_OURS;
	if (!ours || info->family != d->family || priority < d->low || priority > d->high)
		return;
	struct net_item item;
	memset(&item, 0, sizeof(item));
	item.kind = NET_RULE;
	item.family = info->family;
	item.type = info->action;
	item.priority = priority;
	item.invert = (info->flags & FIB_RULE_INVERT) != 0;
	if (item.type == FR_ACT_GOTO && attrs[FRA_GOTO])
		item.table = nla_get_u32(attrs[FRA_GOTO]);
	if (item.type == FR_ACT_TO_TBL)
		item.table = attrs[FRA_TABLE] ? nla_get_u32(attrs[FRA_TABLE]) : info->table;
	if (attrs[FRA_FWMARK])
		item.mark = nla_get_u32(attrs[FRA_FWMARK]);
	if (attrs[FRA_UID_RANGE] && item.invert) {
		nla_memcpy(&range, attrs[FRA_UID_RANGE], sizeof(range));
		item.uid = range.start;
	}
	net_items_add(d->out, &item);
}

/* A family that the kernel does not have holds nothing. */
static int dump(struct netlink *nl, struct nl_msg *message, void (*take)(struct nlmsghdr *, void *), struct dump *d)
{
	int error = ask(nl, message, take, d);
	if (error == -EAFNOSUPPORT || error == -EOPNOTSUPP)
		return 0;
	return error ? error : d->out->failed ? -ENOMEM : 0;
}

int netlink_addresses(struct netlink *nl, uint32_t device, struct net_items *out)
{
	struct ifaddrmsg info = {.ifa_family = AF_UNSPEC, .ifa_index = device};
	struct dump d = {.out = out, .device = device};
	return dump(nl, message_new(RTM_GETADDR, NLM_F_DUMP, &info, sizeof(info)), take_address, &d);
}

int netlink_routes(struct netlink *nl, int family, uint32_t low, uint32_t high, struct net_items *out)
{
	struct rtmsg info = {.rtm_family = (unsigned char)family, .rtm_protocol = NETLINK_OURS};
	int error = 0;
	for (uint32_t table = low; table <= high && !error; table++) {
		struct dump d = {.out = out, .low = table, .high = table, .family = family};
		struct nl_msg *m = message_new(RTM_GETROUTE, NLM_F_DUMP, &info, sizeof(info));
		if (m && nla_put_u32(m, RTA_TABLE, table)) {
			nlmsg_free(m);
			m = NULL;
		}
		error = dump(nl, m, take_route, &d);
		if (error == -ENOENT)      /* no such table */
			error = 0;
	}
	return error;
}

int netlink_rules(struct netlink *nl, int family, uint32_t low, uint32_t high, struct net_items *out)
{
	struct fib_rule_hdr info = {.family = (uint8_t)family};
	struct dump d = {.out = out, .low = low, .high = high, .family = family};
	return dump(nl, message_new(RTM_GETRULE, NLM_F_DUMP, &info, sizeof(info)), take_rule, &d);
}

/* --- what there shall be --------------------------------------------------------------------------------------------- */

static struct nl_msg *address_message(const struct net_item *item, int type, int flags)
{
	struct ifaddrmsg info = {
		.ifa_family = item->family, .ifa_prefixlen = item->bits, .ifa_index = item->device, .ifa_scope = RT_SCOPE_UNIVERSE,
	};
	struct nl_msg *m = message_new(type, flags, &info, sizeof(info));
	int size = (int)address_size(item->family);
	if (!m)
		return NULL;
	int error = nla_put(m, IFA_LOCAL, size, item->address) | nla_put(m, IFA_ADDRESS, size, item->address);
	/* routes to its prefix are ours to make, in our own table; nobody on a TUN device could have the address too */
	if (type == RTM_NEWADDR)
		error |= nla_put_u32(m, IFA_FLAGS, IFA_F_NOPREFIXROUTE | IFA_F_NODAD) | nla_put_u8(m, IFA_PROTO, NETLINK_OURS);
	if (!error)
		return m;
	nlmsg_free(m);
	return NULL;
}

static struct nl_msg *route_message(const struct net_item *item, int type, int flags)
{
	bool local = item->type == RTN_LOCAL;
	struct rtmsg info = {
		.rtm_family = item->family, .rtm_dst_len = item->bits, .rtm_protocol = NETLINK_OURS, .rtm_type = item->type,
		.rtm_scope = local ? RT_SCOPE_HOST : item->type == RTN_THROW ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK,
	};
	if (item->family == AF_INET6)
		info.rtm_scope = RT_SCOPE_UNIVERSE;
	struct nl_msg *m = message_new(type, flags, &info, sizeof(info));
	if (!m)
		return NULL;
	int error = nla_put_u32(m, RTA_TABLE, item->table);
	if (item->bits)
		error |= nla_put(m, RTA_DST, (int)address_size(item->family), item->address);
	if (item->device)
		error |= nla_put_u32(m, RTA_OIF, item->device);
	if (!error)
		return m;
	nlmsg_free(m);
	return NULL;
}

static struct nl_msg *rule_message(const struct net_item *item, int type, int flags)
{
	const struct fib_rule_uid_range range = {item->uid, item->uid};
	struct fib_rule_hdr info = {
		.family = item->family, .action = item->type, .flags = item->invert ? FIB_RULE_INVERT : 0,
	};
	struct nl_msg *m = message_new(type, flags, &info, sizeof(info));
	if (!m)
		return NULL;
	int error = nla_put_u32(m, FRA_PRIORITY, item->priority) | nla_put_u8(m, FRA_PROTOCOL, NETLINK_OURS);
	if (item->table)
		error |= nla_put_u32(m, item->type == FR_ACT_GOTO ? FRA_GOTO : FRA_TABLE, item->table);
	if (item->mark)
		error |= nla_put_u32(m, FRA_FWMARK, item->mark) | nla_put_u32(m, FRA_FWMASK, UINT32_MAX);
	if (item->invert)
		error |= nla_put(m, FRA_UID_RANGE, sizeof(range), &range);
	if (!error)
		return m;
	nlmsg_free(m);
	return NULL;
}

int netlink_add(struct netlink *nl, const struct net_item *item)
{
	const int flags = NLM_F_CREATE | NLM_F_EXCL;
	int error = ask(nl, item->kind == NET_ADDRESS ? address_message(item, RTM_NEWADDR, flags) :
	                    item->kind == NET_ROUTE   ? route_message(item, RTM_NEWROUTE, flags) :
	                                                rule_message(item, RTM_NEWRULE, flags), NULL, NULL);
	return error == -EEXIST ? 0 : error;
}

int netlink_delete(struct netlink *nl, const struct net_item *item)
{
	int error = ask(nl, item->kind == NET_ADDRESS ? address_message(item, RTM_DELADDR, 0) :
	                    item->kind == NET_ROUTE   ? route_message(item, RTM_DELROUTE, 0) :
	                                                rule_message(item, RTM_DELRULE, 0), NULL, NULL);
	return error == -ENOENT || error == -ESRCH || error == -ENODEV || error == -EADDRNOTAVAIL ? 0 : error;
}

/* --- settings -------------------------------------------------------------------------------------------------------- */

static void take_forwarding(struct nlmsghdr *header, void *arg)
{
	struct nlattr *attrs[NETCONFA_MAX + 1];
	if (header->nlmsg_type == RTM_NEWNETCONF &&
	    !nlmsg_parse(header, sizeof(struct netconfmsg), attrs, NETCONFA_MAX, NULL) && attrs[NETCONFA_FORWARDING])
		*(int *)arg = (int)nla_get_u32(attrs[NETCONFA_FORWARDING]);
}

bool netlink_forwards(struct netlink *nl, int family)
{
	struct netconfmsg info = {.ncm_family = (uint8_t)family};
	struct nl_msg *m = message_new(RTM_GETNETCONF, 0, &info, sizeof(info));
	int forwards = -1;
	if (m && nla_put_u32(m, NETCONFA_IFINDEX, (uint32_t)NETCONFA_IFINDEX_ALL)) {
		nlmsg_free(m);
		m = NULL;
	}
	ask(nl, m, take_forwarding, &forwards);
	return forwards != 0;
}
