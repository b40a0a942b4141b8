/* libhello: greetings, one file per language below HELLO_DATA. */
#include "hello.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

int hello_greeting(const char *language, const char *name, char *text, unsigned long size)
{
	char path[4096], word[128];
	FILE *file;

	if (strlen(language) != 2 || !isalpha((unsigned char)language[0]) || !isalpha((unsigned char)language[1]))
		return -1;
	snprintf(path, sizeof path, "%s/%s", HELLO_DATA, language);
	file = fopen(path, "r");
	if (file == NULL)
		return -1;
	if (fgets(word, sizeof word, file) == NULL)
		word[0] = '\0';
	fclose(file);
	word[strcspn(word, "\n")] = '\0';
	snprintf(text, size, "%s, %s!", word, name);
	return 0;
}
