/* Replacing what runs: answered when it is done, however long the old ones drain. */
#include "supervisor/admin_verbs.h"

#include <stdio.h>

#define ANSWER_MS 900000u          /* two generations may have to drain first */

int admin_restart(const struct admin_call *call)
{
	const struct admin_verb *v = call->verb;
	struct ipc_strs args = {(const char **)call->argv, (size_t)call->argc};
	struct admin_reply reply;
	char name[64], error[512];
	struct admin_client *client = admin_connect(call->socket, 0, error, sizeof(error));
	if (!client)
		return admin_error("%s", error);
	snprintf(name, sizeof(name), "%s%s%s", v->noun, v->verb ? " " : "", v->verb ? v->verb : "");
	admin_ask(client, name, &args, -1, ANSWER_MS, &reply);
	int status = admin_print(call, &reply);
	admin_reply_clear(&reply);
	admin_close(client);
	return status;
}
