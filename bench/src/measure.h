/*
 * measure.h - how a C program and its driver, the Go program bench, take turns
 *
 * The program prepares and warms up, and says "ready". The driver notes what all processes have
 * used so far, and sends a line. The program works, and says "done" and what it has measured. Then
 * it waits until the driver has looked at the processes again, and has sent another line.
 */
#ifndef MEASURE_H
#define MEASURE_H

void measure_start(void);
/* units is the amount of work that was done. extra has further results: " name=number"…, or "". */
void measure_end(double units, const char *extra);

#endif
