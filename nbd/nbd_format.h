/*
 * The NBD protocol on the wire: numbers are big-endian, structures packed. Names follow the
 * specification (NetworkBlockDevice/nbd, doc/proto.md; its section in brackets), with our prefix.
 * What is marked X is of its experimental extension "extended headers".
 */
#ifndef VP_NBD_FORMAT_H
#define VP_NBD_FORMAT_H

#include "base/bytes.h"

#include <assert.h>

/* ---- [Newstyle negotiation], [Fixed newstyle negotiation] ---------------------------------- */

#define NBDX_MAGIC              UINT64_C(0x4e42444d41474943) /* "NBDMAGIC" */
#define NBDX_OPTION_MAGIC       UINT64_C(0x49484156454f5054) /* "IHAVEOPT" */
#define NBDX_OPTION_REPLY_MAGIC UINT64_C(0x0003e889045565a9)

struct nbdx_greeting {
    struct be64 magic;
    struct be64 option_magic;
    struct be16 flags;
} __attribute__((packed));
static_assert(sizeof(struct nbdx_greeting) == 18, "greeting");

/* [Flag fields], handshake flags of the server and the flags of the client's answer */
#define NBDX_FLAG_FIXED_NEWSTYLE 0x1U
#define NBDX_FLAG_NO_ZEROES      0x2U

struct nbdx_option {
    struct be64 magic;
    struct be32 option;
    struct be32 length;
} __attribute__((packed));
static_assert(sizeof(struct nbdx_option) == 16, "option request");

struct nbdx_option_reply {
    struct be64 magic;
    struct be32 option;
    struct be32 type;
    struct be32 length;
} __attribute__((packed));
static_assert(sizeof(struct nbdx_option_reply) == 20, "option reply");

/* The answer to NBD_OPT_EXPORT_NAME, which has no header; 124 zeros follow unless NO_ZEROES. */
struct nbdx_export_name_reply {
    struct be64 size;
    struct be16 flags;
} __attribute__((packed));
static_assert(sizeof(struct nbdx_export_name_reply) == 10, "export name reply");
#define NBDX_EXPORT_NAME_ZEROES 124U

/* [Option types] */
enum nbdx_option_type {
    NBDX_OPT_EXPORT_NAME = 1,
    NBDX_OPT_ABORT = 2,
    NBDX_OPT_LIST = 3,
    NBDX_OPT_STARTTLS = 5,
    NBDX_OPT_INFO = 6,
    NBDX_OPT_GO = 7,
    NBDX_OPT_STRUCTURED_REPLY = 8,
    NBDX_OPT_LIST_META_CONTEXT = 9,
    NBDX_OPT_SET_META_CONTEXT = 10,
    NBDX_OPT_EXTENDED_HEADERS = 11, /* X */
};

/* [Option reply types] */
#define NBDX_REP_ACK                 1U
#define NBDX_REP_SERVER              2U
#define NBDX_REP_INFO                3U
#define NBDX_REP_META_CONTEXT        4U
#define NBDX_REP_ERR_UNSUP           0x80000001U
#define NBDX_REP_ERR_POLICY          0x80000002U
#define NBDX_REP_ERR_INVALID         0x80000003U
#define NBDX_REP_ERR_PLATFORM        0x80000004U
#define NBDX_REP_ERR_TLS_REQD        0x80000005U
#define NBDX_REP_ERR_UNKNOWN         0x80000006U
#define NBDX_REP_ERR_SHUTDOWN        0x80000007U
#define NBDX_REP_ERR_TOO_BIG         0x80000009U
#define NBDX_REP_ERR_EXT_HEADER_REQD 0x8000000aU /* X */

/* Payloads of NBD_REP_INFO */
#define NBDX_INFO_EXPORT      0U
#define NBDX_INFO_NAME        1U
#define NBDX_INFO_DESCRIPTION 2U
#define NBDX_INFO_BLOCK_SIZE  3U

struct nbdx_info_export {
    struct be16 type;
    struct be64 size;
    struct be16 flags;
} __attribute__((packed));
static_assert(sizeof(struct nbdx_info_export) == 12, "info export");

struct nbdx_info_block_size {
    struct be16 type;
    struct be32 minimum;
    struct be32 preferred;
    struct be32 maximum;
} __attribute__((packed));
static_assert(sizeof(struct nbdx_info_block_size) == 14, "info block size");

/* [Transmission flags] */
#define NBDX_FLAG_HAS_FLAGS         0x001U
#define NBDX_FLAG_READ_ONLY         0x002U
#define NBDX_FLAG_SEND_FLUSH        0x004U
#define NBDX_FLAG_SEND_FUA          0x008U
#define NBDX_FLAG_SEND_TRIM         0x020U
#define NBDX_FLAG_SEND_WRITE_ZEROES 0x040U
#define NBDX_FLAG_SEND_DF           0x080U
#define NBDX_FLAG_CAN_MULTI_CONN    0x100U
#define NBDX_FLAG_SEND_CACHE        0x400U
#define NBDX_FLAG_SEND_FAST_ZERO    0x800U

/* A string (export name, context, description) is at most this long: [Values], "String". */
#define NBDX_STRING_MAX 4096U

/* [Metadata querying] */
#define NBDX_META_CONTEXT_ALLOCATION "base:allocation"
#define NBDX_META_ID_ALLOCATION      1U
#define NBDX_STATE_HOLE              1U
#define NBDX_STATE_ZERO              2U

/* ---- [Transmission phase] ------------------------------------------------------------------ */

#define NBDX_REQUEST_MAGIC          0x25609513U
#define NBDX_REQUEST_MAGIC_EXT      0x21e41c71U /* X */
#define NBDX_SIMPLE_REPLY_MAGIC     0x67446698U
#define NBDX_STRUCTURED_REPLY_MAGIC 0x668e33efU
#define NBDX_EXTENDED_REPLY_MAGIC   0x6e8a278cU /* X */

struct nbdx_request_compact {
    struct be32 magic;
    struct be16 flags;
    struct be16 type;
    struct be64 cookie;
    struct be64 offset;
    struct be32 length;
} __attribute__((packed));
static_assert(sizeof(struct nbdx_request_compact) == 28, "compact request");

struct nbdx_request_extended { /* X */
    struct be32 magic;
    struct be16 flags;
    struct be16 type;
    struct be64 cookie;
    struct be64 offset;
    struct be64 length;
} __attribute__((packed));
static_assert(sizeof(struct nbdx_request_extended) == 32, "extended request");

struct nbdx_simple_reply {
    struct be32 magic;
    struct be32 error;
    struct be64 cookie; /* copied as it came */
} __attribute__((packed));
static_assert(sizeof(struct nbdx_simple_reply) == 16, "simple reply");

struct nbdx_structured_reply {
    struct be32 magic;
    struct be16 flags;
    struct be16 type;
    struct be64 cookie;
    struct be32 length;
} __attribute__((packed));
static_assert(sizeof(struct nbdx_structured_reply) == 20, "structured reply chunk");

struct nbdx_extended_reply { /* X */
    struct be32 magic;
    struct be16 flags;
    struct be16 type;
    struct be64 cookie;
    struct be64 offset; /* of the request */
    struct be64 length;
} __attribute__((packed));
static_assert(sizeof(struct nbdx_extended_reply) == 32, "extended reply chunk");

/* [Request types] */
enum nbdx_command {
    NBDX_CMD_READ = 0,
    NBDX_CMD_WRITE = 1,
    NBDX_CMD_DISC = 2,
    NBDX_CMD_FLUSH = 3,
    NBDX_CMD_TRIM = 4,
    NBDX_CMD_CACHE = 5,
    NBDX_CMD_WRITE_ZEROES = 6,
    NBDX_CMD_BLOCK_STATUS = 7,
    NBDX_COMMANDS,
};

/* [Command flags] */
#define NBDX_CMD_FLAG_FUA         0x01U
#define NBDX_CMD_FLAG_NO_HOLE     0x02U
#define NBDX_CMD_FLAG_DF          0x04U
#define NBDX_CMD_FLAG_REQ_ONE     0x08U
#define NBDX_CMD_FLAG_FAST_ZERO   0x10U
#define NBDX_CMD_FLAG_PAYLOAD_LEN 0x20U /* X */

/* [Structured reply flags], [Structured reply types] */
#define NBDX_REPLY_FLAG_DONE             1U
#define NBDX_REPLY_TYPE_NONE             0U
#define NBDX_REPLY_TYPE_OFFSET_DATA      1U
#define NBDX_REPLY_TYPE_OFFSET_HOLE      2U
#define NBDX_REPLY_TYPE_BLOCK_STATUS     5U
#define NBDX_REPLY_TYPE_BLOCK_STATUS_EXT 6U /* X */
#define NBDX_REPLY_TYPE_ERROR            0x8001U

/* What precedes the data of OFFSET_DATA, and all of OFFSET_HOLE. */
struct nbdx_chunk_data {
    struct be64 offset;
} __attribute__((packed));
struct nbdx_chunk_hole {
    struct be64 offset;
    struct be32 length;
} __attribute__((packed));
struct nbdx_chunk_error {
    struct be32 error;
    struct be16 message_length;
} __attribute__((packed));
/* Followed by descriptors. */
struct nbdx_chunk_status {
    struct be32 context;
} __attribute__((packed));
struct nbdx_chunk_status_ext { /* X */
    struct be32 context;
    struct be32 count;
} __attribute__((packed));
struct nbdx_descriptor {
    struct be32 length;
    struct be32 state;
} __attribute__((packed));
struct nbdx_descriptor_ext { /* X */
    struct be64 length;
    struct be64 state;
} __attribute__((packed));
static_assert(sizeof(struct nbdx_chunk_hole) == 12, "hole chunk");
static_assert(sizeof(struct nbdx_chunk_error) == 6, "error chunk");
static_assert(sizeof(struct nbdx_chunk_status_ext) == 8, "extended status chunk");
static_assert(sizeof(struct nbdx_descriptor) == 8, "status descriptor");
static_assert(sizeof(struct nbdx_descriptor_ext) == 16, "extended status descriptor");

/* [Error values] */
enum nbdx_error {
    NBDX_OK = 0,
    NBDX_EPERM = 1,
    NBDX_EIO = 5,
    NBDX_EINVAL = 22,
    NBDX_ENOSPC = 28,
    NBDX_EOVERFLOW = 75,
    NBDX_ENOTSUP = 95,
    NBDX_ESHUTDOWN = 108,
};

/* [Size constraints]: what is advertised. Clients that never asked are served up to twice that. */
#define NBDX_BLOCK_MIN       1U
#define NBDX_BLOCK_PREFERRED 4096U
#define NBDX_BLOCK_MAX       (32U << 20)
#define NBDX_LENGTH_MAX      (64U << 20)

#endif
