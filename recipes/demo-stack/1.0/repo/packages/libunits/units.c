#include <stdio.h>
#include <string.h>

#include "units.h"

struct unit { char kind[32], name[32]; double factor; };

static int find(const char *name, struct unit *unit)
{
	FILE *table = fopen(TABLE, "r");
	int found = -1;

	if (!table)
		return -1;
	while (found && fscanf(table, "%31s %31s %lf", unit->kind, unit->name, &unit->factor) == 3)
		if (!strcmp(unit->name, name))
			found = 0;
	fclose(table);
	return found;
}

int units_convert(double value, const char *from, const char *to, double *result)
{
	struct unit a, b;

	if (find(from, &a) || find(to, &b) || strcmp(a.kind, b.kind))
		return -1;
	*result = value * a.factor / b.factor;
	return 0;
}
