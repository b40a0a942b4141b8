#ifndef UNITS_H
#define UNITS_H

/* Converts a value from one unit into another of the same kind. Returns 0, or -1
 * if a unit is not known or the two are of different kinds. */
int units_convert(double value, const char *from, const char *to, double *result);

#endif
