/*
 * process.h - what the plugin keeps for the process that it is loaded in.
 *
 * After fork() the child must not use anything of its parent: other threads may have held the
 * locks, and the socket is the parent's. So everything belongs to a struct process that knows its
 * pid, and a child makes a new one at its first call. The parent's stays as it was at the fork and
 * is never touched.
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
	SETTINGS_KEPT = 2, /* from one session to the next: the CA bundle, the bound of NewClient */
};

/* A right that one thread at a time has. mu guards it, and a thread that waits for it gives mu up
 * meanwhile. */
struct turn {
	bool taken;
	int waiting; /* threads */
	pthread_cond_t free;
};

struct process {
	pid_t pid;
	struct process *parent; /* the one that was forked, in sight of leak checkers; or NULL */
	int32_t inherited;      /* handles up to this one are the parent's; 0: none */

	/* A child may read these of its parent's struct process; so they are atomic. */
	_Atomic int32_t highest;   /* handle ever given to the host */
	_Atomic(char *) settings[SETTINGS_KEPT]; /* parameters of calls (client.c), or NULL */

	/* How often tls_Cancel was called. A call is cancelled when this is no longer what it was
	 * when the call began. */
	atomic_uint cancels;

	struct bell bell; /* of all waits: for tls_Cancel, and for what else ends a wait early */

	atomic_bool strict; /* a Write returns when its bytes have left */

	/* Guards all that follows, and what session.h and channel.h say. Nothing blocks under
	 * it. */
	pthread_mutex_t mu;

	/* Taken in this order. */
	struct turn setting; /* the right to change the session's settings */
	struct turn opening; /* the right to open a session */

	unsigned searches;           /* for a tlsd that have failed */
	char found_not[ERROR_BYTES]; /* why the last one has failed */

	unsigned changes; /* of what tls_Wait waits for, but for the descriptors themselves */
	int waits;        /* threads in tls_Wait */

	struct session *session; /* the one to use; NULL before the first and after a loss */
	int64_t first;               /* handles below it are lost */
	unsigned set[SETTINGS_KEPT]; /* how often each was set */
	char why_lost[LOST_BYTES];
	char error[ERROR_BYTES]; /* the most recent error of all threads */
	struct last_error *errors; /* of each thread that has had one (error.c) */
};

/* A visit is the time of one function of tlsplugin.h. During it the thread cannot be cancelled,
 * because others may hold pointers to its stack. The host's errno is the same after it. */
struct visit {
	struct process *process; /* NULL if there is no memory for it */
	int error, cancel;
};

/* What a visit does without a struct visit. False if p is not in use here, or not any more. Leave
 * it in any case. */
bool process_enter(const struct process *p);
void process_leave(void);

void visit_begin(struct visit *v);
void visit_end(struct visit *v);

/* --- the end of calls before their time --- */

/* Cancels the calls that are going on. Can be called in a signal handler. */
void process_cancel(void);

/* Whether a call was cancelled that began when p->cancels was this. */
bool process_cancelled(struct process *p, unsigned began);

/* --- turns; mu is held ---
 *
 * A thread that waits for a turn does not listen to the bell. The thread that has the turn listens,
 * and then wakes all that wait. Each of them looks whether its call is cancelled. */

/* Waits for the turn and takes it; false if the call that wants it is cancelled. */
bool turn_take(struct process *p, struct turn *turn, unsigned began);
void turn_give_back(struct turn *turn);

/* Wakes all threads that wait for it, so that each looks whether its call is cancelled. */
void turn_wake_all(struct turn *turn);

void turn_init(struct turn *turn);
void turn_destroy(struct turn *turn);

/* --- the end of the library --- */

/* For the unloading of the library: takes this process's struct process out of use and returns it,
 * or NULL if there is none or a thread is using it. */
struct process *process_retire(void);
void process_free(struct process *p); /* its errors are freed before (error.h) */

#endif
