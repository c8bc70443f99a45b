/* An intrusive doubly linked list with a sentinel. An element is in one list at a time. */
#ifndef VP_BASE_LIST_H
#define VP_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *prev, *next;
};

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static inline void list_init(struct list *l)
{
    l->prev = l->next = l;
}
static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}
static inline void list_add_tail(struct list *l, struct list *e)
{
    e->prev = l->prev;
    e->next = l;
    l->prev->next = e;
    l->prev = e;
}
static inline void list_add_head(struct list *l, struct list *e)
{
    list_add_tail(l->next, e);
}
/* Removes e; e becomes an empty list, so that a second removal is harmless. */
static inline void list_del(struct list *e)
{
    e->prev->next = e->next;
    e->next->prev = e->prev;
    list_init(e);
}
static inline struct list *list_pop(struct list *l)
{
    if (list_empty(l))
        return NULL;
    struct list *e = l->next;
    list_del(e);
    return e;
}
static inline struct list *list_pop_tail(struct list *l)
{
    struct list *e = l->prev;
    if (list_empty(l))
        return NULL;
    list_del(e);
    return e;
}
/* Moves what stands before `end` (an element of `from`; `from` itself: everything) to `to`, which
 * has nothing else then. */
static inline void list_cut_head(struct list *from, struct list *end, struct list *to)
{
    list_init(to);
    if (from->next == end)
        return;
    to->next = from->next;
    to->prev = end->prev;
    to->next->prev = to->prev->next = to;
    from->next = end;
    end->prev = from;
}
/* Appends all of `from` to `to`; `from` becomes empty. */
static inline void list_splice_tail(struct list *to, struct list *from)
{
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

#define list_first(l, type, member) container_of((l)->next, type, member)

#define list_for_each(it, l, member)                                                               \
    for (it = container_of((l)->next, __typeof__(*it), member); &it->member != (l);                \
         it = container_of(it->member.next, __typeof__(*it), member))

/* Survives removal of `it`. */
#define list_for_each_safe(it, tmp, l, member)                                                     \
    for (it = container_of((l)->next, __typeof__(*it), member),                                    \
        tmp = container_of(it->member.next, __typeof__(*it), member);                              \
         &it->member != (l);                                                                       \
         it = tmp, tmp = container_of(tmp->member.next, __typeof__(*it), member))

#endif
