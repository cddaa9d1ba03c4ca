/* The threads of one forward. They are started for it and end with it, so nothing is left to close.
 *
 * All run the same phases in step. In a phase each takes the next task until there are none; then it waits
 * for the others. */

#ifndef TEAM_H
#define TEAM_H

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SPINS 4000 /* looks at the others before a thread gives its processor away */

typedef struct {
    int threads;
    atomic_int arrived, turn;
    atomic_int *next; /* of each phase, the next task */
} Team;

typedef struct {
    Team *team;
    int number, phase; /* of this thread; of all in step */
    char *scratch;     /* its own */
} Member;

/* The next task of the phase under way, `tasks` or more when there are none left. */
static inline int take(Member *me) { return atomic_fetch_add(&me->team->next[me->phase], 1); }

/* The end of a phase: what every thread has written is there for all. */
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
    for (int spins = 0; atomic_load_explicit(&team->turn, memory_order_acquire) == turn; spins++)
        if (spins < SPINS)
            _mm_pause();
        else
            sched_yield();
}
#endif
