/*
 * Jobs that go on after a restart, in COUNTER records, which older releases leave alone: scope 0
 * holds the number of the next job (le64), any other scope is a job's number and holds the struct
 * below. The log's checksum covers them; decoding still trusts nothing.
 */
#ifndef VP_POOL_JOB_FORMAT_H
#define VP_POOL_JOB_FORMAT_H

#include "base/bytes.h"

#include <assert.h>

#define JOB_COUNTER_KEY 19U /* of the COUNTER records */

enum job_record_state {
    JOB_RECORD_RUNNING = 1,
    JOB_RECORD_PAUSED = 2,
};

struct job_record_disk {
    uint8_t kind;  /* enum pool_job_kind; an unknown one is a newer release's, and stays */
    uint8_t state; /* enum job_record_state */
    struct le16 zero;
    struct le32 volume;  /* id */
    struct le64 started; /* seconds since 1970 */
    struct le64 total;   /* units; 0: not counted */
    struct le64 done;    /* units, when the record was written */
    struct le64 limit;   /* units a second; 0: none */
} __attribute__((packed));
static_assert(sizeof(struct job_record_disk) == 40, "on-disk size");
static_assert(offsetof(struct job_record_disk, started) == 8, "on-disk layout");

#endif
