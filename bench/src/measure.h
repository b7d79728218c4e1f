/*
 * measure.h - how a program of the benchmark and its driver take turns
 *
 * The program prepares and warms up, and says "ready". The driver notes what other processes have
 * used so far, and sends a line. The program works, and says "done" and what it has measured. The
 * driver looks at the processes again. Until it sends another line, the program does nothing.
 */
#ifndef MEASURE_H
#define MEASURE_H

void measure_start(void);
/* units is how much was done. extra is "" or more " name=number" pairs. */
void measure_end(double units, const char *extra);

#endif
