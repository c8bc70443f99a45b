/* Lines of a client of the control socket (rpc_lines.h). The methods are not called. */
#include "tests/fuzz/rpc_lines.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run(struct control *c, const struct method *m, const void *args, json_t **result,
               struct vp_error *err)
{
    (void)c;
    (void)args;
    (void)err;
    *result = json_pack("{s:s}", "method", m->name);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct rpc rpc = {.tables = methods_all, .run = run};
    rpc_lines_handle(&rpc, data, size);
    return 0;
}
