/* A team of threads that share the items of a list of steps.
 *
 * A step begins when all items of the one before it are done. Every thread has a share of the
 * items, the same part of them in every step, so that what it made lies in its own cache when it
 * goes on. Items are claimed one by one, and whoever is done helps the others: a thread that the
 * machine takes away delays only the item it holds. Between runs the threads sleep. A second
 * caller, while the team works, works alone.
 */
#pragma once
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#define MOST_THREADS 64
#define PATIENCE 256 /* looks at a counter before the processor is offered to others */

typedef void (*ItemFunction)(const void *job, int64_t step, int64_t item);

typedef struct {
    atomic_int_least64_t next; /* the item that is claimed next */
    int64_t end, apart[6];     /* a cache line for each */
} Share;

typedef struct {
    atomic_int users, joined;
    int shares; /* of a step: one for each thread that is wanted */
    int64_t steps;
    ItemFunction work;
    const void *job;
    Share *share; /* (steps, shares) */
    struct {
        int64_t items;
        atomic_int_least64_t done;
    } at[];
} Run;

/* A run of so many steps for so many threads, its items still to be said; 0 without memory. */
static Run *run_new(int64_t steps, int threads) {
    if (threads < 1) threads = 1;
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    Run *run = calloc(1, sizeof(Run) + steps * sizeof(run->at[0]));
    if (!run) return 0;
    run->share = calloc(steps ? steps * threads : 1, sizeof(Share));
    if (!run->share) {
        free(run);
        return 0;
    }
    run->steps = steps;
    run->shares = threads;
    return run;
}

static void run_items(Run *run, int64_t step, int64_t items) {
    run->at[step].items = items;
    for (int p = 0; p < run->shares; p++) {
        Share *share = run->share + step * run->shares + p;
        atomic_init(&share->next, items * p / run->shares);
        share->end = items * (p + 1) / run->shares;
    }
}

static pthread_mutex_t team_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t team_wake = PTHREAD_COND_INITIALIZER;
static pthread_mutex_t team_busy = PTHREAD_MUTEX_INITIALIZER;
static int team_size = 0;   /* threads there are, besides callers */
static int team_wanted = 0; /* how many may join the present run */
static Run *team_run = 0;

/* Do every item that nobody else does, one's own share first; wait at the end of each step. */
static void run_walk(Run *run) {
    const int me = atomic_fetch_add(&run->joined, 1);
    for (int64_t s = 0; s < run->steps; s++) {
        int64_t did = 0;
        for (int k = 0; k < run->shares; k++) {
            Share *share = run->share + s * run->shares + (me + k) % run->shares;
            while (atomic_load_explicit(&share->next, memory_order_relaxed) < share->end) {
                const int64_t item = atomic_fetch_add(&share->next, 1);
                if (item >= share->end) break;
                run->work(run->job, s, item);
                did++;
            }
        }
        if (did) atomic_fetch_add(&run->at[s].done, did);
        for (int looks = 0; atomic_load(&run->at[s].done) < run->at[s].items; looks++)
            if (looks > PATIENCE) sched_yield();
    }
}

static void run_leave(Run *run) {
    if (atomic_fetch_sub(&run->users, 1) > 1) return;
    free(run->share);
    free(run);
}

static void *team_member(void *unused) {
    (void)unused;
    for (;;) {
        pthread_mutex_lock(&team_lock);
        while (!team_wanted) pthread_cond_wait(&team_wake, &team_lock);
        team_wanted--;
        Run *run = team_run;
        atomic_fetch_add(&run->users, 1);
        pthread_mutex_unlock(&team_lock);
        run_walk(run);
        run_leave(run);
    }
    return 0;
}

static void team_forget(void) { /* in a forked child, which has no threads but its own */
    pthread_mutex_init(&team_lock, 0);
    pthread_mutex_init(&team_busy, 0);
    pthread_cond_init(&team_wake, 0);
    team_size = team_wanted = 0;
    team_run = 0;
}

static void team_grow(int wanted) {
    static int once = 0;
    if (!once) once = !pthread_atfork(0, 0, team_forget);
    while (team_size < wanted) {
        pthread_t thread;
        pthread_attr_t detached;
        pthread_attr_init(&detached);
        pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
        const int failed = pthread_create(&thread, &detached, team_member, 0);
        pthread_attr_destroy(&detached);
        if (failed) return;
        team_size++;
    }
}

/* Do all items of all steps; the run is given up to this function. */
static void team_do(Run *run) {
    const int threads = run->shares;
    atomic_store(&run->users, 1);
    const int shared = threads > 1 && !pthread_mutex_trylock(&team_busy);
    if (shared) {
        pthread_mutex_lock(&team_lock);
        team_grow(threads - 1);
        team_run = run;
        team_wanted = threads - 1 < team_size ? threads - 1 : team_size;
        pthread_cond_broadcast(&team_wake);
        pthread_mutex_unlock(&team_lock);
    }
    run_walk(run);
    if (shared) {
        pthread_mutex_lock(&team_lock);
        team_wanted = 0;
        team_run = 0;
        pthread_mutex_unlock(&team_lock);
        pthread_mutex_unlock(&team_busy);
    }
    run_leave(run);
}
