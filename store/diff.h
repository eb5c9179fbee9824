/* Unified difference of two texts, by lines. */
#ifndef HERMES_STORE_DIFF_H
#define HERMES_STORE_DIFF_H

/* malloc'd text with "--- FROM", "+++ TO" and hunks of three lines of context; empty where the texts are equal. NULL: out of
 * memory. Where the differing part is too large to compare in detail it comes out as one block. */
char *diff_unified(const char *from, const char *a, const char *to, const char *b);

#endif
