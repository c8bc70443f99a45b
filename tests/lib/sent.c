/* Requests beside a test. */
#include "tests/lib/sent.h"

#include "tests/lib/on_reactor.h"

static CO void sent_main(void *arg)
{
    struct sent *t = arg;
    t->rc = t->run(t);
    t->done = true;
}

void sent_begin(struct sent *t, struct front *f, int (*run)(struct sent *t), uint64_t at)
{
    *t = (struct sent){.run = run, .at = at};
    front_client_init(&t->client, f);
    check_ok(co_spawn(sent_main, t, "request"));
}

CO void sent_begin_and_yield(struct sent *t, struct front *f, int (*run)(struct sent *t),
                             uint64_t at)
{
    sent_begin(t, f, run, at);
    co_yield ();
}
