/*
 * process.h - the state that the plugin keeps for its process.
 *
 * After fork() the child must not use anything of its parent: other threads may have held the
 * locks, and the socket is the parent's. So everything belongs to a struct process that knows its
 * pid. A child makes a new one at its first call. The parent's struct process stays as it was at
 * the fork. The child only reads its pid and its atomic members.
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
	SETTINGS_KEPT = 2, /* for the next session: the CA bundle, the timeout of tls_NewClient */
};

/* A turn is a right that one thread at a time has. mu guards it. A thread that waits for a turn
 * gives mu up meanwhile. */
struct turn {
	bool taken;
	int waiting; /* threads */
	pthread_cond_t free;
};

struct process {
	pid_t pid;
	struct process *parent; /* the one before the fork, for leak checkers only; or NULL */
	int32_t inherited;      /* handles up to this one are the parent's; 0: none */

	/* A child reads these members of its parent's struct process. So they are atomic. */
	_Atomic int32_t highest;   /* the highest handle that the host has got */
	_Atomic(char *) settings[SETTINGS_KEPT]; /* parameters of calls (client.c), or NULL */

	/* The number of calls of tls_Cancel. If it changes after a call has begun, the call is
	 * cancelled. */
	atomic_uint cancels;

	struct bell bell; /* ends waits early: for tls_Cancel, a Close, a loss, and tls_Wait */

	atomic_bool strict; /* a Write returns when its bytes have left */

	/* Guards all that follows, and the members that session.h and channel.h name. Nothing
	 * blocks under it. */
	pthread_mutex_t mu;

	/* Taken in this order. */
	struct turn setting; /* the right to change the session's settings */
	struct turn opening; /* the right to open a session */

	unsigned searches;               /* the number of failed searches for a tlsd */
	char why_not_found[ERROR_BYTES]; /* why the last search has failed */

	unsigned changes; /* the number of changes of watched handles, for tls_Wait */
	int waits;        /* threads in tls_Wait */

	struct session *session; /* the one to use; NULL before the first and after a loss */
	int64_t first;               /* handles below it are lost */
	unsigned set[SETTINGS_KEPT]; /* how often each setting was set */
	char why_lost[LOST_BYTES];
	char error[ERROR_BYTES]; /* the most recent error of all threads */
	struct last_error *errors; /* of each thread that has had one (error.c) */
};

/* A visit is one call of a function of tlsplugin.h. During a visit the cancellation of the thread
 * is disabled, because other threads may hold pointers to its stack. A visit leaves errno as it
 * was. */
struct visit {
	struct process *process; /* NULL if there is no memory for it */
	int error, cancel;
};

/* A visit without a struct visit. process_enter returns false if p does not belong to this process,
 * or was retired (process_retire). Call process_leave in any case. */
bool process_enter(const struct process *p);
void process_leave(void);

void visit_begin(struct visit *v);
void visit_end(struct visit *v);

/* --- cancelling --- */

/* Cancels the calls that are going on. A signal handler may call it. */
void process_cancel(void);

/* Says whether a call was cancelled. began is p->cancels at the beginning of the call. */
bool process_cancelled(struct process *p, unsigned began);

/* --- turns; mu is held ---
 *
 * A thread that waits for a turn does not listen to the bell. The thread that has the turn listens,
 * and then wakes all that wait. Each of them looks whether its call is cancelled. */

/* Waits for the turn and takes it. Returns false if the call is cancelled; see
 * process_cancelled. */
bool turn_take(struct process *p, struct turn *turn, unsigned began);
void turn_give_back(struct turn *turn);

/* Wakes all threads that wait for the turn, so that each looks whether its call is cancelled. */
void turn_wake_all(struct turn *turn);

void turn_init(struct turn *turn);
void turn_destroy(struct turn *turn);

/* --- the end of the library --- */

/* Takes this process's struct process out of use and returns it, when the library is unloaded.
 * Returns NULL if there is none, or if a thread is using it. */
struct process *process_retire(void);
void process_free(struct process *p); /* call errors_free before (error.h) */

#endif
