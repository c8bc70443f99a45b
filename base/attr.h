/* Ownership attributes: AUTO_FREE, AUTO_FD, AUTO_DIR and AUTO_FILE release at the end of the scope;
 * steal() hands over. */
#ifndef VP_BASE_ATTR_H
#define VP_BASE_ATTR_H

#include <dirent.h>
#include <stdio.h>
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
static inline void vp_auto_closedir(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}
static inline void vp_auto_fclose(FILE **file)
{
    if (*file)
        fclose(*file);
}

#define AUTO_FREE __attribute__((cleanup(vp_auto_free)))
#define AUTO_FD   __attribute__((cleanup(vp_auto_close)))
#define AUTO_DIR  __attribute__((cleanup(vp_auto_closedir)))
#define AUTO_FILE __attribute__((cleanup(vp_auto_fclose))) /* read: closing has nothing to tell */

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
