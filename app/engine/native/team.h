/* The threads of one forward pass. They start and end with it, so there is nothing to close.
 *
 * All run the same phases in step. In a phase, each takes the next task until none are left; then it waits
 * for the others. */

#ifndef TEAM_H
#define TEAM_H

#include "gate.h"
#include <immintrin.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define SPINS 4000 /* before yielding the processor */

typedef struct Member Member;
typedef void (*Body)(Member *me, void *given);

typedef struct {
    int threads;
    int goes_first; /* others give way to it, see gate.h */
    atomic_int arrived, turn, begun;
    atomic_int *next; /* the next task of each phase */
    Body body;
    void *given;
} Team;

struct Member {
    Team *team;
    int phase;     /* the current one */
    char *scratch; /* its own memory */
    pthread_t thread;
};

static inline void give_way(const Team *team) {
    if (!team->goes_first && must_stop()) stop();
}

/* The next task of the current phase; a number >= the task count when none are left. */
static inline int take(Member *me) {
    give_way(me->team);
    return atomic_fetch_add(&me->team->next[me->phase], 1);
}

/* The end of a phase: wait for all threads; after it, each sees what the others have written. */
static inline void meet(Member *me) {
    Team *team = me->team;
    me->phase++;
    if (team->threads == 1) return;
    int turn = atomic_load(&team->turn);
    if (atomic_fetch_add(&team->arrived, 1) + 1 == team->threads) {
        atomic_store(&team->arrived, 0);
        atomic_store(&team->turn, turn + 1);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&team->turn, memory_order_acquire) == turn; spins++) {
        give_way(team);
        if (spins < SPINS)
            _mm_pause();
        else
            sched_yield();
    }
}

static void *begin(void *given) {
    Member *me = given;
    while (!atomic_load(&me->team->begun)) sched_yield();
    me->team->body(me, me->team->given);
    return NULL;
}

/* Run `body` in this many threads, or fewer if the system gives no more; -1 if there is no memory. */
static int together(int threads, int goes_first, int phases, size_t scratch, Body body, void *given) {
    scratch = (scratch + 4095) / 4096 * 4096;
    Member *members = calloc(threads, sizeof(Member));
    atomic_int *next = calloc(phases, sizeof(atomic_int));
    char *scratches = aligned_alloc(4096, threads * scratch);
    if (members && next && scratches) {
        Team team = {.goes_first = goes_first, .next = next, .body = body, .given = given};
        for (int n = 0; n < threads; n++)
            members[n] = (Member){.team = &team, .scratch = scratches + n * scratch};
        int started = 1;
        while (started < threads && !pthread_create(&members[started].thread, NULL, begin, &members[started]))
            started++;
        team.threads = started;
        if (goes_first) go_ahead();
        atomic_store(&team.begun, 1);
        body(&members[0], given);
        for (int n = 1; n < started; n++) pthread_join(members[n].thread, NULL);
        if (goes_first) let_go();
    }
    int failed = !members || !next || !scratches;
    free(members);
    free(next);
    free(scratches);
    return failed ? -1 : 0;
}
#endif
