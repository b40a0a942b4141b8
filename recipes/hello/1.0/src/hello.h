#ifndef HELLO_H
#define HELLO_H

#define HELLO_VERSION "1.0"

/* Writes the greeting of a language (two letters) for a name to text, which has
   room for size bytes. Returns 0, or -1 if the language has no greeting. */
int hello_greeting(const char *language, const char *name, char *text, unsigned long size);

#endif
