#define _POSIX_C_SOURCE 200809L
#include "process.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "system.h"

/* tls_Cancel may run in a signal handler that has interrupted a thread which holds a lock. So
 * atomics must not use locks. */
_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_POINTER_LOCK_FREE == 2,
	       "atomics of this machine need locks");

static _Atomic(struct process *) self;
/* The number of visits and other uses (process_enter) that are going on. In a child of fork(2) it
 * also counts those that were going on in the parent at the fork; they never end.
 *
 * A thread counts itself in visits, and then reads self. process_retire sets self to NULL, and then
 * reads visits. So either process_retire sees the thread, or the thread sees NULL. */
static atomic_int visits;

void process_free(struct process *p)
{
	bell_destroy(&p->bell);
	for (int i = 0; i < SETTINGS_KEPT; i++)
		free(atomic_load(&p->settings[i]));
	turn_destroy(&p->setting);
	turn_destroy(&p->opening);
	pthread_mutex_destroy(&p->mu);
	free(p);
}

/* Makes the struct process of this process. parent is the struct process from before a fork, or
 * NULL. */
static struct process *make(struct process *parent)
{
	struct process *p = calloc(1, sizeof *p);
	const char *strict = sys_getenv("TLSD_STRICT_WRITES");

	if (!p)
		return NULL;
	p->pid = getpid();
	p->parent = parent;
	turn_init(&p->setting);
	turn_init(&p->opening);
	pthread_mutex_init(&p->mu, NULL);

	/* The child cannot use the parent's handles. Its own handles begin after their numbers.
	 * The child gets the parent's settings. Otherwise it would silently use the system's trust
	 * store. */
	p->inherited = parent ? atomic_load(&parent->highest) : 0;
	p->first = (int64_t)p->inherited + 1;
	for (int i = 0; i < SETTINGS_KEPT; i++) {
		const char *value = parent ? atomic_load(&parent->settings[i]) : NULL;
		char *copy = value ? strdup(value) : NULL;

		atomic_init(&p->settings[i], copy);
		p->set[i] = value != NULL;
		if (value && !copy) {
			process_free(p);
			return NULL;
		}
	}
	atomic_init(&p->highest, p->inherited);
	bell_init(&p->bell);
	atomic_init(&p->strict, parent ? atomic_load(&parent->strict) :
					 strict && *strict && strcmp(strict, "0") != 0);
	return p;
}

static struct process *this_process(void)
{
	struct process *p = atomic_load(&self), *mine;

	if (p && p->pid == getpid())
		return p;
	mine = make(p);
	if (!mine)
		return NULL;
	if (atomic_compare_exchange_strong(&self, &p, mine))
		return mine;
	process_free(mine); /* another thread was faster */
	return p;
}

bool process_enter(const struct process *p)
{
	atomic_fetch_add(&visits, 1); /* before self is read */
	return atomic_load(&self) == p && p->pid == getpid();
}

void process_leave(void)
{
	atomic_fetch_sub(&visits, 1);
}

void visit_begin(struct visit *v)
{
	v->error = errno;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &v->cancel);
	atomic_fetch_add(&visits, 1); /* before self is read */
	v->process = this_process();
}

void visit_end(struct visit *v)
{
	atomic_fetch_sub(&visits, 1);
	pthread_setcancelstate(v->cancel, NULL);
	errno = v->error;
}

struct process *process_retire(void)
{
	struct process *p = atomic_load(&self);

	if (!p || p->pid != getpid() || !atomic_compare_exchange_strong(&self, &p, NULL))
		return NULL;
	if (atomic_load(&visits) == 0)
		return p;
	atomic_store(&self, p);
	return NULL;
}

/* --- cancelling --- */

/* Uses nothing but atomics and system calls, because a signal handler may call it. */
void process_cancel(void)
{
	struct process *p;
	int saved = errno;

	atomic_fetch_add(&visits, 1); /* before self is read */
	p = atomic_load(&self);
	if (p && p->pid == getpid()) {
		atomic_fetch_add(&p->cancels, 1);
		bell_ring(&p->bell);
	}
	atomic_fetch_sub(&visits, 1);
	errno = saved;
}

bool process_cancelled(struct process *p, unsigned began)
{
	return atomic_load(&p->cancels) != began;
}

/* --- turns --- */

void turn_init(struct turn *turn)
{
	*turn = (struct turn){ .taken = false };
	pthread_cond_init(&turn->free, NULL);
}

void turn_destroy(struct turn *turn)
{
	pthread_cond_destroy(&turn->free);
}

bool turn_take(struct process *p, struct turn *turn, unsigned began)
{
	while (turn->taken && !process_cancelled(p, began)) {
		turn->waiting++;
		pthread_cond_wait(&turn->free, &p->mu);
		turn->waiting--;
	}
	if (process_cancelled(p, began)) {
		if (!turn->taken)
			turn_give_back(turn); /* it stays free: wakes another thread that waits */
		return false;
	}
	turn->taken = true;
	return true;
}

void turn_take_always(struct process *p, struct turn *turn)
{
	/* turn_take fails only if tls_Cancel is called after this look at p->cancels. */
	while (!turn_take(p, turn, atomic_load(&p->cancels)))
		;
}

void turn_give_back(struct turn *turn)
{
	turn->taken = false;
	if (turn->waiting > 0)
		pthread_cond_signal(&turn->free);
}

void turn_wake_all(struct turn *turn)
{
	pthread_cond_broadcast(&turn->free);
}
