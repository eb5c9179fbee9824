#include "supervisor/admin_verbs.h"

#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const char heading[] =
	"usage: hermes-admin [-s SOCKET] [--json] VERB ...\n"
	"\n"
	"  -s, --socket SOCKET  hermesd's admin socket (default /run/hermes/admin.sock, or HERMES_SOCKET)\n"
	"      --json           one JSON document instead of a table\n"
	"      --help, --version\n"
	"\n";
static const char footing[] = "\nExit status: 0 done, 1 refused or failed, 2 wrong usage. See hermes-admin(1).\n";

enum { OPTION_JSON = 256, OPTION_VERSION };

static const struct option options_long[] = {
	{"socket", required_argument, NULL, 's'},
	{"json", no_argument, NULL, OPTION_JSON},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, OPTION_VERSION},
	{NULL, 0, NULL, 0},
};

static int show_help(const char *noun)
{
	fputs(heading, stdout);
	if (noun && !admin_verbs_usage(stdout, noun)) {
		admin_error("%s: no such verb; `hermes-admin --help` shows them all", noun);
		return 2;
	}
	if (!noun)
		admin_verbs_usage(stdout, NULL);
	fputs(footing, stdout);
	return 0;
}

static int wrong_verb(int argc, char **argv)
{
	if (argc)
		admin_error("%s%s%s: no such verb", argv[0], argc > 1 ? " " : "", argc > 1 ? argv[1] : "");
	else
		admin_error("a verb is missing");
	if (!argc || !admin_verbs_usage(stderr, argv[0]))
		fputs("hermes-admin: `hermes-admin --help` shows what there is\n", stderr);
	return 2;
}

static int wrong_usage(const struct admin_verb *v)
{
	admin_error("usage: hermes-admin %s%s%s %s", v->noun, v->verb ? " " : "", v->verb ? v->verb : "", v->usage);
	return 2;
}

/* status alone takes its option by itself: the server wants the bare word. */
static int take_check(struct admin_call *call)
{
	if (strcmp(call->verb->noun, "status") || !call->argc)
		return 0;
	if (call->argc != 2 || strcmp(call->argv[0], "--check") || (strcmp(call->argv[1], "live") && strcmp(call->argv[1], "ready")))
		return -1;
	call->argv++;
	call->argc--;
	return 0;
}

int main(int argc, char **argv)
{
	struct admin_call call = {.socket = getenv("HERMES_SOCKET")};
	int matched = 0;
	bool help = false;
	if (!call.socket || !*call.socket)
		call.socket = "/run/hermes/admin.sock";
	signal(SIGPIPE, SIG_DFL);
	/* "+": words after the verb, also those with dashes, are the verb's */
	for (int c; (c = getopt_long(argc, argv, "+s:h", options_long, NULL)) != -1;) {
		switch (c) {
		case 's': call.socket = optarg; break;
		case OPTION_JSON: call.json = true; break;
		case 'h': help = true; break;
		case OPTION_VERSION: puts("hermes-admin " HERMES_VERSION); return 0;
		default: return 2;
		}
	}
	argc -= optind;
	argv += optind;
	/* --json and --help are welcome at the end, too */
	while (argc && (!strcmp(argv[argc - 1], "--json") || !strcmp(argv[argc - 1], "--help"))) {
		call.json |= !strcmp(argv[argc - 1], "--json");
		help |= !strcmp(argv[--argc], "--help");
	}
	if (help)
		return show_help(argc ? argv[0] : NULL);
	call.verb = admin_verb_find(argc, argv, &matched);
	if (!call.verb)
		return wrong_verb(argc, argv);
	call.argc = argc - matched;
	call.argv = argv + matched;
	if (call.argc < call.verb->min || call.argc > call.verb->max || take_check(&call))
		return wrong_usage(call.verb);
	return call.verb->run ? call.verb->run(&call) : admin_run(&call);
}
