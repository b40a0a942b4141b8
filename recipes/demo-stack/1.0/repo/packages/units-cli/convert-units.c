#include <stdio.h>
#include <stdlib.h>

#include <units.h>

int main(int argc, char **argv)
{
	double result;

	if (argc != 4) {
		fprintf(stderr, "usage: convert-units VALUE FROM TO\n");
		return 2;
	}
	if (units_convert(atof(argv[1]), argv[2], argv[3], &result)) {
		fprintf(stderr, "convert-units: cannot convert %s to %s\n", argv[2], argv[3]);
		return 1;
	}
	printf("%g\n", result);
	return 0;
}
