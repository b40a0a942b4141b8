#include <stdio.h>

int main(void)
{
	printf("hello from a user environment, built by gcc %s\n", __VERSION__);
	return 0;
}
