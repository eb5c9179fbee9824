/* The configuration generations that a deciding worker keeps: the one in force, the one before it, and the one being
 * prepared. A question is answered from the generation that it carries (tunnel workers switch one after the other); one
 * that is not kept is answered from the one in force, and the answer names the generation that it was made from. */
#ifndef HERMES_STORE_GENERATIONS_H
#define HERMES_STORE_GENERATIONS_H

#include <stdint.h>

struct generation { uint64_t number; void *object; };
struct generations {
	struct generation prepared, committed, previous;   /* object NULL: none */
	void (*release)(void *object);
};

/* Takes object over. A generation prepared before and never committed is released. */
void generations_prepare(struct generations *g, uint64_t number, void *object);
/* The prepared one becomes the one in force. A number that is not prepared changes nothing. */
void generations_commit(struct generations *g, uint64_t number);
void generations_abort(struct generations *g, uint64_t number);
/* The object to answer from, and *used: its generation. NULL: nothing is in force yet. */
void *generations_find(const struct generations *g, uint64_t number, uint64_t *used);
void generations_clear(struct generations *g);

#endif
