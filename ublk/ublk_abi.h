/*
 * What we use of the kernel's ublk interface (include/uapi/linux/ublk_cmd.h of Linux 7.0), under
 * names of our own, since the headers of the systems that we build on are older than the kernels we
 * run on. Host byte order.
 */
#ifndef VP_UBLK_UBLK_ABI_H
#define VP_UBLK_UBLK_ABI_H

#include <assert.h>
#include <linux/ioctl.h>
#include <stddef.h>
#include <stdint.h>

#define UBLKX_CONTROL_PATH "/dev/ublk-control"

struct ublkx_ctl_cmd {
    uint32_t dev_id;
    uint16_t queue_id; /* 0xffff: none */
    uint16_t len;      /* of what addr points to */
    uint64_t addr;
    uint64_t data;
    uint16_t dev_path_len;
    uint16_t pad;
    uint32_t reserved;
};
static_assert(sizeof(struct ublkx_ctl_cmd) == 32, "kernel interface");
static_assert(offsetof(struct ublkx_ctl_cmd, addr) == 8, "kernel interface");

struct ublkx_dev_info {
    uint16_t nr_hw_queues;
    uint16_t queue_depth;
    uint16_t state;
    uint16_t pad0;
    uint32_t max_io_buf_bytes;
    uint32_t dev_id;
    int32_t server_pid;
    uint32_t pad1;
    uint64_t flags;
    uint64_t server_flags; /* the server's own; the kernel keeps it for recovery */
    uint32_t owner_uid;
    uint32_t owner_gid;
    uint64_t reserved1;
    uint64_t reserved2;
};
static_assert(sizeof(struct ublkx_dev_info) == 64, "kernel interface");

enum ublkx_dev_state {
    UBLKX_DEV_DEAD = 0,
    UBLKX_DEV_LIVE = 1,
    UBLKX_DEV_QUIESCED = 2, /* its server is gone, requests wait */
    UBLKX_DEV_FAIL_IO = 3,
};

/* Control commands */
#define UBLKX_CTL_GET_DEV_INFO   _IOR('u', 0x02, struct ublkx_ctl_cmd)
#define UBLKX_CTL_ADD_DEV        _IOWR('u', 0x04, struct ublkx_ctl_cmd)
#define UBLKX_CTL_DEL_DEV        _IOWR('u', 0x05, struct ublkx_ctl_cmd)
#define UBLKX_CTL_START_DEV      _IOWR('u', 0x06, struct ublkx_ctl_cmd)
#define UBLKX_CTL_STOP_DEV       _IOWR('u', 0x07, struct ublkx_ctl_cmd)
#define UBLKX_CTL_SET_PARAMS     _IOWR('u', 0x08, struct ublkx_ctl_cmd)
#define UBLKX_CTL_GET_PARAMS     _IOR('u', 0x09, struct ublkx_ctl_cmd)
#define UBLKX_CTL_START_RECOVERY _IOWR('u', 0x10, struct ublkx_ctl_cmd)
#define UBLKX_CTL_END_RECOVERY   _IOWR('u', 0x11, struct ublkx_ctl_cmd)
#define UBLKX_CTL_GET_FEATURES   _IOR('u', 0x13, struct ublkx_ctl_cmd)
#define UBLKX_CTL_DEL_DEV_ASYNC  _IOR('u', 0x14, struct ublkx_ctl_cmd) /* Linux 6.7 */
#define UBLKX_CTL_UPDATE_SIZE    _IOWR('u', 0x15, struct ublkx_ctl_cmd)

/* Flags of a device, and features of a kernel */
#define UBLKX_F_USER_RECOVERY    (UINT64_C(1) << 3)
#define UBLKX_F_RECOVERY_REISSUE (UINT64_C(1) << 4)
#define UBLKX_F_UNPRIVILEGED_DEV (UINT64_C(1) << 5) /* made by who has no CAP_SYS_ADMIN */
#define UBLKX_F_IOCTL_ENCODE     (UINT64_C(1) << 6)
#define UBLKX_F_USER_COPY        (UINT64_C(1) << 7)
#define UBLKX_F_UPDATE_SIZE      (UINT64_C(1) << 10)
#define UBLKX_F_AUTO_BUF_REG     (UINT64_C(1) << 11) /* Linux 6.16: zero copy */

struct ublkx_params {
    uint32_t len;
    uint32_t types;
    struct {
        uint32_t attrs;
        uint8_t logical_bs_shift;
        uint8_t physical_bs_shift;
        uint8_t io_opt_shift;
        uint8_t io_min_shift;
        uint32_t max_sectors;
        uint32_t chunk_sectors;
        uint64_t dev_sectors;
        uint64_t virt_boundary_mask;
    } basic;
    struct {
        uint32_t alignment;
        uint32_t granularity;
        uint32_t max_discard_sectors;
        uint32_t max_write_zeroes_sectors;
        uint16_t max_discard_segments;
        uint16_t reserved;
    } discard;
    uint8_t devt_and_zoned[48]; /* not used */
    struct {
        uint32_t mask; /* alignment of memory, less one; Linux 6.15 */
        uint8_t pad[4];
    } dma;
};
static_assert(offsetof(struct ublkx_params, basic) == 8, "kernel interface");
static_assert(offsetof(struct ublkx_params, discard) == 40, "kernel interface");
static_assert(offsetof(struct ublkx_params, dma) == 108, "kernel interface");

#define UBLKX_PARAM_BASIC         1U
#define UBLKX_PARAM_DISCARD       2U
#define UBLKX_PARAM_DMA_ALIGN     16U

#define UBLKX_ATTR_READ_ONLY      1U
#define UBLKX_ATTR_VOLATILE_CACHE 4U
#define UBLKX_ATTR_FUA            8U

/* Commands of a queue */
struct ublkx_io_cmd {
    uint16_t q_id;
    uint16_t tag;
    int32_t result;
    uint64_t addr;
};
static_assert(sizeof(struct ublkx_io_cmd) == 16, "kernel interface");

/* With UBLKX_F_AUTO_BUF_REG the address of a command's entry in the ring (not in ublkx_io_cmd) is
 * the slot of the ring's table of buffers into which the next request of this tag is put before the
 * command completes; the command after it takes it out. */
#define UBLKX_IO_FETCH            _IOWR('u', 0x20, struct ublkx_io_cmd)
#define UBLKX_IO_COMMIT_AND_FETCH _IOWR('u', 0x21, struct ublkx_io_cmd)

/* A request, written by the kernel into the mapped array of its queue before the fetch of its tag
 * completes. */
struct ublkx_io_desc {
    uint32_t op_flags; /* operation in the low byte */
    uint32_t sectors;
    uint64_t start_sector;
    uint64_t addr;
};
static_assert(sizeof(struct ublkx_io_desc) == 24, "kernel interface");

#define UBLKX_OP_READ          0U
#define UBLKX_OP_WRITE         1U
#define UBLKX_OP_FLUSH         2U
#define UBLKX_OP_DISCARD       3U
#define UBLKX_OP_WRITE_ZEROES  5U
#define UBLKX_OPS              6U /* those that we know are below it */
#define UBLKX_IO_FUA           (1U << 13)
#define UBLKX_IO_NOUNMAP       (1U << 15)

#define UBLKX_QUEUE_DEPTH_MAX  4096U /* distance of the queues' arrays in the mapping */
#define UBLKX_COPY_BASE        UINT64_C(0x80000000)
#define UBLKX_COPY_TAG_SHIFT   25
#define UBLKX_COPY_QUEUE_SHIFT 41

#endif
