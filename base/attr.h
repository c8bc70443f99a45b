/* Ownership attributes: AUTO_FREE and AUTO_FD release at the end of the scope; steal() hands over.
 */
#ifndef VP_BASE_ATTR_H
#define VP_BASE_ATTR_H

#include <stdlib.h>
#include <unistd.h>

static inline void vp_auto_free(void *p)
{
    free(*(void **)p);
}
static inline void vp_auto_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

#define AUTO_FREE __attribute__((cleanup(vp_auto_free)))
#define AUTO_FD   __attribute__((cleanup(vp_auto_close)))

/* Takes the pointer out of an AUTO_FREE variable: `return steal(p);` */
#define steal(p)                                                                                   \
    ({                                                                                             \
        __typeof__(p) vp_stolen_ = (p);                                                            \
        (p) = NULL;                                                                                \
        vp_stolen_;                                                                                \
    })

static inline int steal_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

#endif
