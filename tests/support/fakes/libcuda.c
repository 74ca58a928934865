/* A CUDA driver of host memory, stricter than the real one about what a program may not rely on.
 *
 * Streams are queues that run only when somebody waits: a result read too early is not there yet.
 * Device pointers carry a tag and are no valid host pointers, so that mixing them up ends the process.
 * What FAKE_CUDA says ("NAME|CC MAJOR|CC MINOR|INTEGRATED|MiB") is the only device; unset, there is none.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define TAG 0x5A00000000000000ULL
#define CHECK(condition) \
    do { if (!(condition)) { fprintf(stderr, "fake CUDA: %s: %s\n", __func__, #condition); abort(); } } while (0)

enum { INVALID = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, CAPTURE_UNSUPPORTED = 900 };
enum { COPY, RECORD, CALL };

typedef struct { int kind; void *a, *b; size_t n; void (*function)(void *); } Op;
typedef struct { Op *ops; size_t count, room; } Queue;
typedef struct { Queue queue; Queue *capture; } Stream;
typedef struct { double ms; int happened; } Event;

static double now_ms;          /* every operation takes 0.25 ms of the fake clock */
static size_t allocated;       /* bytes on the device */
static _Thread_local int context_is_set;
static long launches, enqueues, waits;

static void *untag(uint64_t p) { CHECK((p & 0xFF00000000000000ULL) == TAG); return (void *)(uintptr_t)(p & ~TAG); }
static uint64_t tag(void *p) { return (uint64_t)(uintptr_t)p | TAG; }

static void push(Stream *s, Op op) {
    CHECK(context_is_set);
    Queue *q = s->capture ? s->capture : &s->queue;
    if (q->count == q->room) q->ops = realloc(q->ops, (q->room = 2 * q->room + 8) * sizeof(Op));
    q->ops[q->count++] = op;
}
static void perform(Op *op) {
    now_ms += 0.25;
    if (op->kind == COPY) memcpy(op->a, op->b, op->n);
    if (op->kind == RECORD) { ((Event *)op->a)->ms = now_ms; ((Event *)op->a)->happened = 1; }
    if (op->kind == CALL) op->function(op->a);
}

/* For the fake TensorRT: its run becomes an operation of the stream. */
EXPORT void fake_enqueue(void *s, void (*function)(void *), void *argument) {
    enqueues++;
    push(s, (Op){.kind = CALL, .a = argument, .function = function});
}
EXPORT void *fake_host_pointer(uint64_t p) { return untag(p); }
EXPORT long fake_count(const char *what) {
    return !strcmp(what, "launches") ? launches : !strcmp(what, "enqueues") ? enqueues
         : !strcmp(what, "waits") ? waits : (long)allocated;
}

static int field(int number, char *out, size_t size) {
    const char *text = getenv("FAKE_CUDA");
    if (!text) return 0;
    while (number--) { text = strchr(text, '|'); CHECK(text); text++; }
    snprintf(out, size, "%.*s", (int)strcspn(text, "|"), text);
    return 1;
}
static long numeric(int number) { char text[64]; return field(number, text, sizeof text) ? atol(text) : 0; }

EXPORT int cuInit(unsigned flags) { return flags ? INVALID : getenv("FAKE_CUDA") ? 0 : NO_DEVICE; }
EXPORT int cuDriverGetVersion(int *v) { *v = 12060; return 0; }
EXPORT int cuDeviceGetCount(int *n) { *n = getenv("FAKE_CUDA") ? 1 : 0; return 0; }
EXPORT int cuDeviceGet(int *device, int i) { *device = i; return i ? INVALID : 0; }
EXPORT int cuDeviceGetName(char *name, int size, int device) { return field(0, name, size) ? 0 : INVALID; }
EXPORT int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)numeric(4) << 20; return 0; }
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 13: *value = 1020000; return 0;
    case 16: *value = 8; return 0;
    case 18: *value = (int)numeric(3); return 0;
    case 75: *value = (int)numeric(1); return 0;
    case 76: *value = (int)numeric(2); return 0;
    default: return INVALID;
    }
}
EXPORT int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &allocated; return device ? INVALID : 0; }
EXPORT int cuCtxSetCurrent(void *context) { CHECK(context == &allocated); context_is_set = 1; return 0; }
static _Thread_local int set_before;
EXPORT int cuCtxPushCurrent_v2(void *context) { set_before = context_is_set; return cuCtxSetCurrent(context); }
EXPORT int cuCtxPopCurrent_v2(void **context) { *context = &allocated; context_is_set = set_before; return 0; }
EXPORT int cuMemGetInfo_v2(size_t *available, size_t *total) {
    *total = (size_t)numeric(4) << 20; *available = *total - allocated; return 0;
}
EXPORT int cuMemAlloc_v2(uint64_t *p, size_t size) {
    CHECK(context_is_set);
    if (allocated + size > (size_t)numeric(4) << 20) return OUT_OF_MEMORY;
    size_t *block = malloc(size + 64);
    *block = size; allocated += size;
    *p = tag((char *)block + 64);
    memset(untag(*p), 0xCD, size);
    return 0;
}
EXPORT int cuMemFree_v2(uint64_t p) {
    CHECK(context_is_set);
    size_t *block = (size_t *)((char *)untag(p) - 64);
    allocated -= *block; free(block); return 0;
}
EXPORT int cuMemHostAlloc(void **p, size_t size, unsigned flags) {
    CHECK(context_is_set && (flags & 2));
    *p = malloc(size); memset(*p, 0xCD, size); return 0;
}
EXPORT int cuMemFreeHost(void *p) { free(p); return 0; }
EXPORT int cuMemHostGetDevicePointer_v2(uint64_t *p, void *host, unsigned flags) { *p = tag(host); return flags ? INVALID : 0; }
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n, void *s) {
    push(s, (Op){.kind = COPY, .a = untag(to), .b = (void *)from, .n = n}); return 0;
}
EXPORT int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n, void *s) {
    push(s, (Op){.kind = COPY, .a = to, .b = untag(from), .n = n}); return 0;
}
EXPORT int cuStreamCreate(void **s, unsigned flags) { *s = calloc(1, sizeof(Stream)); return flags == 1 ? 0 : INVALID; }
EXPORT int cuStreamSynchronize(void *handle) {
    Stream *s = handle;
    CHECK(!s->capture);
    waits++;
    for (size_t i = 0; i < s->queue.count; i++) perform(&s->queue.ops[i]);
    s->queue.count = 0;
    return 0;
}
EXPORT int cuStreamDestroy_v2(void *s) { free(((Stream *)s)->queue.ops); free(s); return 0; }
EXPORT int cuEventCreate(void **e, unsigned flags) { *e = calloc(1, sizeof(Event)); return flags; }
EXPORT int cuEventRecord(void *e, void *s) { push(s, (Op){.kind = RECORD, .a = e}); return 0; }
EXPORT int cuEventElapsedTime(float *ms, void *start, void *end) {
    Event *a = start, *b = end;
    if (!a->happened || !b->happened) return 600; /* not ready */
    *ms = (float)(b->ms - a->ms);
    return 0;
}
EXPORT int cuEventDestroy_v2(void *e) { free(e); return 0; }
EXPORT int cuStreamBeginCapture_v2(void *handle, int mode) {
    Stream *s = handle;
    if (getenv("FAKE_CUDA_NO_CAPTURE")) return CAPTURE_UNSUPPORTED;
    s->capture = calloc(1, sizeof(Queue));
    return 0;
}
EXPORT int cuStreamEndCapture(void *handle, void **graph) {
    Stream *s = handle;
    if (!s->capture) return INVALID;
    *graph = s->capture; s->capture = NULL; return 0;
}
EXPORT int cuGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long flags) {
    Queue *from = graph, *to = calloc(1, sizeof(Queue));
    to->ops = malloc(from->count * sizeof(Op) + 1); to->count = from->count;
    memcpy(to->ops, from->ops, from->count * sizeof(Op));
    *exec = to; return flags ? INVALID : 0;
}
EXPORT int cuGraphLaunch(void *exec, void *s) {
    Queue *q = exec;
    launches++;
    for (size_t i = 0; i < q->count; i++) push(s, q->ops[i]);
    return 0;
}
EXPORT int cuGraphDestroy(void *graph) { free(((Queue *)graph)->ops); free(graph); return 0; }
EXPORT int cuGraphExecDestroy(void *exec) { free(((Queue *)exec)->ops); free(exec); return 0; }
EXPORT int cuGetErrorString(int code, const char **text) {
    *text = code == OUT_OF_MEMORY ? "out of memory" : code == NO_DEVICE ? "no CUDA-capable device is detected"
          : code == CAPTURE_UNSUPPORTED ? "operation not permitted when stream is capturing" : "invalid argument";
    return 0;
}
