/* hello [-l LANGUAGE] [NAME] */
#include "hello.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	const char *language = "en", *name = "world";
	char text[512];
	int i = 1;

	if (i < argc && strcmp(argv[i], "--version") == 0) {
		puts("hello " HELLO_VERSION);
		return 0;
	}
	if (i + 1 < argc && strcmp(argv[i], "-l") == 0) {
		language = argv[i + 1];
		i += 2;
	}
	if (i < argc && argv[i][0] != '-')
		name = argv[i++];
	if (i < argc) {
		fprintf(stderr, "usage: hello [--version] [-l LANGUAGE] [NAME]\n");
		return 2;
	}
	if (hello_greeting(language, name, text, sizeof text) != 0) {
		fprintf(stderr, "hello: no greeting in language '%s'\n", language);
		return 1;
	}
	puts(text);
	return 0;
}
