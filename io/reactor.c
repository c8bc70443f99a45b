/*
 * The loop and the life of a reactor. A turn: due timers and messages, then the ready coroutines,
 * then one system call that submits what they queued and waits for what comes next; in a simulated
 * world that call is sim_reactor_step.
 */
#include "base/verify.h"
#include "io/hang_impl.h"
#include "io/memory_impl.h"
#include "io/reactor_impl.h"
#include "io/region_impl.h"
#include "io/ring_impl.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#define SWITCHES_PER_TURN 256U /* then what they queued is submitted */

_Thread_local struct reactor *reactor_current;

/* ---- life ---------------------------------------------------------------------------------- */

static struct reactor_config with_defaults(const struct reactor_config *given)
{
    struct reactor_config c = *given;
    if (!c.max_coroutines)
        c.max_coroutines = 4096;
    if (!c.stack_bytes)
        c.stack_bytes = 64U << 10;
    if (!c.buffer_bytes)
        c.buffer_bytes = 64U << 20;
    if (!c.ring_entries)
        c.ring_entries = 1024;
    return c;
}

static _Atomic unsigned index_end;

static void index_note(unsigned index)
{
    unsigned seen = atomic_load(&index_end);
    while (seen <= index && !atomic_compare_exchange_weak(&index_end, &seen, index + 1))
        ;
}

int reactor_new(const struct reactor_config *config, struct reactor **out, struct vp_error *err)
{
    struct reactor *r = calloc(1, sizeof(*r));
    if (!r)
        return vp_fail(err, VP_E_NO_MEMORY, "no memory for a reactor");
    r->config = with_defaults(config);
    memory_merge_at_once();
    index_note(config->index);
    list_init(&r->ready);
    list_init(&r->live);
    list_init(&r->idle_stacks);
    list_init(&r->completed);
    list_init(&r->waiting_ops);
    timer_init(&r->waiting_timer, reactor_retry_ops);
    timer_init(&r->hang_timer, hang_scan);
    bool real = !r->config.sim;
    int rc = reactor_timers_grow(r) ? 0 : vp_fail(err, VP_E_NO_MEMORY, "no memory for a reactor");
    if (rc == 0)
        rc = mailbox_init(&r->mailbox, real ? 1024 : 16, real, err);
    if (rc == 0 && real)
        rc = ring_new(&r->config, &r->figures, r->mailbox.event_fd, &r->ring, err);
    if (rc != 0) {
        reactor_free(r);
        return rc;
    }
    *out = r;
    return 0;
}

void reactor_free(struct reactor *r)
{
    if (!r)
        return;
    VP_VERIFY_TRUE(reactor_current != r);
    VP_VERIFY_TRUE(r->config.sim || figure_get(&r->figures.coroutines) == 0);
    reactor_drop_coroutines(r);
    ring_free(r->ring);
    region_free(r->region, r->config.sim != NULL);
    mailbox_fini(&r->mailbox);
    free(r->timers);
    free(r);
}

/* ---- the loop ------------------------------------------------------------------------------ */

_Thread_local uint64_t reactor_clock_ns;
_Thread_local unsigned reactor_own_index;

void reactor_update_turn(void)
{
    reactor_clock_ns = reactor_now_ns();
}

static void run_coroutines(struct reactor *r)
{
    uint64_t end = figure_get(&r->figures.switches) + SWITCHES_PER_TURN;
    do {
        reactor_run_ready(r, (unsigned)(end - figure_get(&r->figures.switches)));
        if (list_empty(&r->completed))
            continue;
        reactor_update_turn(); /* what was done on the spot took time as well */
        reactor_complete_local(r);
    } while (!list_empty(&r->ready) && figure_get(&r->figures.switches) < end);
}

static bool is_finished(struct reactor *r)
{
    if (!atomic_load(&r->stop) || figure_get(&r->figures.coroutines) > 0)
        return false;
    mailbox_close(&r->mailbox);
    return mailbox_is_empty(&r->mailbox);
}

bool reactor_turn_simulated(struct reactor *r, bool *idle)
{
    figure_add(&r->figures.turns, 1);
    reactor_update_turn();
    reactor_run_timers(r);
    mailbox_receive(&r->mailbox);
    reactor_run_ready(r, SWITCHES_PER_TURN);
    if (sim_world_is_cut(r->config.sim) || is_finished(r))
        return false;
    *idle = list_empty(&r->ready) && mailbox_sleep(&r->mailbox);
    mailbox_awake(&r->mailbox);
    return true;
}

static void run_simulated(struct reactor *r)
{
    bool idle = false;
    while (reactor_turn_simulated(r, &idle))
        if (idle && !sim_reactor_step(r->config.sim, reactor_next_timer_ns(r)))
            return;
}

/* How long to wait: until the next timer, but not at all while there is something to run or, for
 * poll_us after the last work, when the reactor is to poll. */
static uint64_t wait_time(struct reactor *r, uint64_t last_work_ns)
{
    if (!list_empty(&r->ready))
        return 0;
    uint64_t now = r->config.poll_us || r->timer_count ? reactor_now_ns() : 0;
    if (r->config.poll_us && now - last_work_ns < r->config.poll_us * 1000ULL)
        return 0;
    uint64_t next = reactor_next_timer_ns(r);
    return next == UINT64_MAX ? UINT64_MAX : next > now ? next - now : 0;
}

static void run_real(struct reactor *r)
{
    uint64_t last_work_ns = 0, last_switches = 0;
    ring_start(r->ring);
    for (;;) {
        figure_add(&r->figures.turns,
                   1); /* its time is that of the completions which ring_turn has seen */
        reactor_run_timers(r);
        mailbox_receive(&r->mailbox);
        run_coroutines(r);
        if (is_finished(r))
            break;
        if (figure_get(&r->figures.switches) != last_switches)
            last_work_ns = reactor_clock_ns;
        last_switches = figure_get(&r->figures.switches);
        uint64_t wait_ns = wait_time(r, last_work_ns);
        /* The order matters: `sleeping` is set before the last look (mailbox_impl.h). */
        if (wait_ns == 0 || !mailbox_sleep(&r->mailbox)) {
            ring_turn(r->ring, 0);
            continue;
        }
        if (atomic_load(&r->stop) && figure_get(&r->figures.coroutines) == 0)
            wait_ns = 0;
        ring_turn(r->ring, wait_ns);
        mailbox_awake(&r->mailbox);
    }
    ring_stop(r->ring);
}

void reactor_enter(struct reactor *r)
{
    VP_VERIFY(reactor_current, ==, NULL);
    reactor_current = r;
    reactor_own_index = r->config.index;
    co_context_init_thread(&r->loop);
    reactor_update_turn();
}

void reactor_exit(void)
{
    reactor_current = NULL;
}

void reactor_run(struct reactor *r, void (*first)(void *arg), void *arg)
{
    reactor_enter(r);
    if (first)
        VP_VERIFY(co_spawn(first, arg, "first"), ==, 0);
    if (r->config.sim)
        run_simulated(r);
    else
        run_real(r);
    reactor_exit();
}

void reactor_stop(struct reactor *r)
{
    atomic_store(&r->stop, true);
    mailbox_kick(&r->mailbox);
}

/* ---- who, when, random ---------------------------------------------------------------------- */

struct reactor *reactor_self(void)
{
    return reactor_current;
}

unsigned reactor_index(const struct reactor *r)
{
    return r->config.index;
}

unsigned reactor_index_end(void)
{
    return atomic_load(&index_end);
}

struct reactor_features reactor_features(const struct reactor *r)
{
    return r->ring ? ring_features(r->ring) : (struct reactor_features){0};
}

static const struct figure rows[] = {
#define FIGURE(...) FIGURE_ROW(struct reactor_figures, __VA_ARGS__)
#include "io/figures.def"
};
const struct figure_set reactor_figure_set = {"reactor", rows, sizeof(rows) / sizeof(rows[0])};

const struct reactor_figures *reactor_figures(const struct reactor *r)
{
    return &r->figures;
}

static struct sim_world *current_sim(void)
{
    return reactor_current ? reactor_current->config.sim : NULL;
}

uint64_t reactor_now_ns(void)
{
    struct sim_world *sim = current_sim();
    if (sim)
        return sim_reactor_now_ns(sim);
    struct timespec ts;
    VP_VERIFY(clock_gettime(CLOCK_MONOTONIC, &ts), ==, 0);
    return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

#define SIM_EPOCH_SECONDS 1700000000ULL /* the date at which simulated worlds begin */

uint64_t reactor_wall_seconds(void)
{
    struct sim_world *sim = current_sim();
    if (sim)
        return SIM_EPOCH_SECONDS + sim_reactor_now_ns(sim) / 1000000000ULL;
    struct timespec ts;
    VP_VERIFY(clock_gettime(CLOCK_REALTIME, &ts), ==, 0);
    return (uint64_t)ts.tv_sec;
}

void reactor_random(void *out, size_t len)
{
    struct sim_world *sim = current_sim();
    if (sim) {
        sim_reactor_random(sim, out, len);
        return;
    }
    unsigned char *p = out;
    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0) {
            VP_VERIFY(errno, ==, EINTR);
            continue;
        }
        p += n;
        len -= (size_t)n;
    }
}
