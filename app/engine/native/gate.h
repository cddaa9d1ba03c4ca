/* A forward pass that others give way to: while one runs, the others stop before their next task.
 *
 * A batch of documents takes seconds, each of its tasks about a millisecond. So a question need not wait for
 * the batch, and the batch loses only the time of the question. */

#ifndef GATE_H
#define GATE_H

#include <pthread.h>
#include <stdatomic.h>

static atomic_int ahead; /* running forward passes that others give way to */
static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_open = PTHREAD_COND_INITIALIZER;

static void go_ahead(void) { atomic_fetch_add(&ahead, 1); }

static void let_go(void) {
    pthread_mutex_lock(&gate_lock);
    if (atomic_fetch_sub(&ahead, 1) == 1) pthread_cond_broadcast(&gate_open);
    pthread_mutex_unlock(&gate_lock);
}

static inline int must_stop(void) { return atomic_load_explicit(&ahead, memory_order_relaxed) > 0; }

static void stop(void) {
    pthread_mutex_lock(&gate_lock);
    while (must_stop()) pthread_cond_wait(&gate_open, &gate_lock);
    pthread_mutex_unlock(&gate_lock);
}
#endif
