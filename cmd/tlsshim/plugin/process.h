/*
 * process.h - the state that the plugin keeps for its process.
 *
 * After fork() the child must not use anything of its parent: other threads may have held the
 * locks, and the socket is the parent's. So the plugin keeps everything in a struct process, with
 * the pid of the process that has made the struct. A child makes a struct of its own at its first
 * call. The parent's struct stays in the child's memory as it was at the fork. Of this struct the
 * child reads only the pid and the atomic members.
 */
#ifndef TLSPLUGIN_PROCESS_H
#define TLSPLUGIN_PROCESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "bell.h"
#include "error.h"

enum {
	LOST_BYTES = 1024, /* room for the reason of a loss */
	SETTINGS_KEPT = 2, /* the CA bundle, and the timeout of tls_NewClient (client.h) */
};

/* A turn is a right that one thread at a time has. mu, the lock of struct process, guards the
 * members. While a thread waits for a turn, it does not hold mu. */
struct turn {
	bool taken;
	int waiting; /* the number of threads that wait for the turn */
	pthread_cond_t free;
};

struct process {
	pid_t pid;
	struct process *parent; /* the parent's struct process or NULL; kept for leak checkers */
	int32_t inherited;      /* handles up to this number are the parent's; 0: none */

	/* A child reads the atomic members of its parent's struct process. */
	_Atomic int32_t highest;   /* the highest handle that the host has received */
	_Atomic(char *) settings[SETTINGS_KEPT]; /* JSON parameters (client.c); NULL: never set */

	/* The number of calls of tls_Cancel. If it changes after a call has begun, the call is
	 * cancelled. */
	atomic_uint cancels;

	struct bell bell; /* rung to end waits early, for example at tls_Cancel or tls_Close */

	atomic_bool strict; /* a Write returns only when tlsd has sent the bytes of the Write */

	/* mu guards all members below. session.h, call.h and channel.h say what else it guards. No
	 * thread blocks while it holds mu. In the comments of functions, "mu is held" and "mu is
	 * not held" are demands on the caller. */
	pthread_mutex_t mu;

	/* A thread that needs both turns takes them in this order. */
	struct turn setting; /* the right to change the session's settings */
	struct turn opening; /* the right to open a session */

	unsigned searches;               /* the number of failed searches for a tlsd */
	char why_not_found[ERROR_BYTES]; /* why the most recent of these searches has failed */

	unsigned changes; /* the number of changes of watched handles, for tls_Wait */
	int waits;        /* threads in tls_Wait */

	struct session *session; /* the current session; NULL before the first, and after a loss */
	int64_t first; /* handles with lower numbers are lost, or belong to the parent */
	unsigned set[SETTINGS_KEPT]; /* how often each setting was set */
	char why_lost[LOST_BYTES];
	char error[ERROR_BYTES]; /* the most recent error of all threads */
	struct last_error *errors; /* a list: the last error of each thread (error.c) */
};

/* A visit is one call of a function of tlsplugin.h. During a visit pthread_cancel(3) cannot end the
 * thread, because other threads may have pointers to the thread's stack. A visit leaves errno as it
 * was. */
struct visit {
	struct process *process; /* NULL if there is no memory for it */
	int error, cancel; /* errno and the cancel state (pthreads(7)) from before the visit */
};

/* For code that uses p outside of a visit, such as code that runs when a thread ends. From
 * process_enter to process_leave, process_retire does not take p out of use. process_enter returns
 * false if p does not belong to this process, or was taken out of use before: then do not use p.
 * Call process_leave after each process_enter, whatever its result was. */
bool process_enter(const struct process *p);
void process_leave(void);

void visit_begin(struct visit *v);
void visit_end(struct visit *v);

/* --- cancelling --- */

/* Cancels the calls that are going on. A signal handler may call it. */
void process_cancel(void);

/* Says whether a call was cancelled. The parameter began is the value of p->cancels at the
 * beginning of the call. */
bool process_cancelled(struct process *p, unsigned began);

/* --- turns; mu is held ---
 *
 * A thread that waits for a turn does not listen to the bell. The thread that has the turn listens.
 * If the bell rings, this thread wakes the waiting threads, and each of them looks whether its call
 * is cancelled. */

/* Waits for the turn and takes it. Returns false if the call is cancelled. The parameter began is
 * the same as for process_cancelled. */
bool turn_take(struct process *p, struct turn *turn, unsigned began);
/* Waits for the turn and takes it, even if the call is cancelled. */
void turn_take_always(struct process *p, struct turn *turn);
void turn_give_back(struct turn *turn);

/* Wakes all threads that wait for the turn, so that each looks whether its call is cancelled. */
void turn_wake_all(struct turn *turn);

void turn_init(struct turn *turn);
void turn_destroy(struct turn *turn);

/* --- the end of the library --- */

/* Call this function when the library is unloaded. It takes this process's struct process out of
 * use, and returns the struct process. It returns NULL, and changes nothing, if there is no struct
 * process, or if a thread is in a visit or between process_enter and process_leave. */
struct process *process_retire(void);
void process_free(struct process *p); /* call errors_free before (error.h) */

#endif
