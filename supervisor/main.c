#include "supervisor/check.h"
#include "supervisor/restart.h"
#include "supervisor/supervisor.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
	"usage: hermesd [-c FILE] [-t] [--state-dir DIR] [--runtime-dir DIR]\n"
	"\n"
	"  -c, --config FILE     the configuration (default /etc/hermes/hermes.yaml)\n"
	"  -t, --test            check the configuration and the files that it names, and exit\n"
	"      --state-dir DIR   where the store lies (default /var/lib/hermes)\n"
	"      --runtime-dir DIR where admin.sock is made (default /run/hermes)\n"
	"      --help            this text\n"
	"      --version         the version\n"
	"\n"
	"Stays in the foreground. SIGHUP reloads, SIGUSR1 opens log files again, SIGTERM stops.\n"
	"See hermesd(8), hermes.yaml(5), hermes-admin(1).\n";

enum { OPTION_STATE = 256, OPTION_RUNTIME, OPTION_HELP, OPTION_VERSION, OPTION_ACCEPT, OPTION_TAKE, OPTION_BEFORE, OPTION_FAILED };

static const struct option options_long[] = {
	{"config", required_argument, NULL, 'c'},
	{"test", no_argument, NULL, 't'},
	{"state-dir", required_argument, NULL, OPTION_STATE},
	{"runtime-dir", required_argument, NULL, OPTION_RUNTIME},
	{"help", no_argument, NULL, OPTION_HELP},
	{"version", no_argument, NULL, OPTION_VERSION},
	/* of hermesd to itself, when it restarts in place */
	{"accept-state", required_argument, NULL, OPTION_ACCEPT},
	{"take-over", required_argument, NULL, OPTION_TAKE},
	{"before", required_argument, NULL, OPTION_BEFORE},
	{"failed", required_argument, NULL, OPTION_FAILED},
	{NULL, 0, NULL, 0},
};

int main(int argc, char **argv)
{
	struct options options = {
		.config = "/etc/hermes/hermes.yaml", .state_dir = "/var/lib/hermes", .runtime_dir = "/run/hermes", .state = -1,
		.before = -1,
	};
	bool test = false;
	for (int c; (c = getopt_long(argc, argv, "c:th", options_long, NULL)) != -1;) {
		switch (c) {
		case 'c': options.config = optarg; break;
		case 't': test = true; break;
		case OPTION_STATE: options.state_dir = optarg; break;
		case OPTION_RUNTIME: options.runtime_dir = optarg; break;
		case 'h':
		case OPTION_HELP: fputs(usage, stdout); return 0;
		case OPTION_VERSION: puts("hermesd " HERMES_VERSION); return 0;
		case OPTION_ACCEPT: return restart_accept(atoi(optarg));
		case OPTION_TAKE: options.state = atoi(optarg); break;
		case OPTION_BEFORE: options.before = atoi(optarg); break;
		case OPTION_FAILED: options.failed = optarg; break;
		default: fputs("hermesd: `hermesd --help` shows the usage\n", stderr); return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "hermesd: unexpected argument %s; `hermesd --help` shows the usage\n", argv[optind]);
		return 2;
	}
	return test ? check_configuration(options.config) : supervisor_run(&options);
}
