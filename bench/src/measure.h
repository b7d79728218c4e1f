/*
 * measure.h - how a program of the benchmark and its driver take turns
 *
 * The program prepares and warms up, and says "ready". The driver notes what other
 * processes have used so far, and sends a line. The program works, and says "done" and what
 * it has measured. It stays as it is until the driver, which looks at
 * the processes again, has sent another line.
 */
#ifndef MEASURE_H
#define MEASURE_H

void measure_start(void);
/* units is how much was done. extra is "" or more " name=number" pairs. */
void measure_end(double units, const char *extra);

#endif
