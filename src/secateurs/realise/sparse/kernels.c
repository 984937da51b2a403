/* The sparse run time: a list of steps over planes of activations, by a team of threads.
 *
 * An activation is a list of planes, one a channel. A plane holds its rows one after another,
 * `pitch` floats apart, with zeros between a row's end and the next row's begin, before the first
 * row and after the last: a filter that reaches over an edge reads zeros. See docs/runtime.md.
 *
 * Everything that indexes memory comes from the caller, who checks it before the first run.
 */
#define _GNU_SOURCE
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "layers.h"
#include "team.h"

/* Write zeros where rows end, into `count` outputs from position `at` on. */
static inline void zero_row_ends(const Layer *l, int64_t at, int64_t count, float *out) {
    for (int64_t end = at / l->pitch * l->pitch + l->columns; end < at + count; end += l->pitch)
        for (int64_t i = end < at ? at : end; i < end + l->pitch - l->columns && i < at + count; i++)
            out[i - at] = 0;
}

/* The whole numbers of 8 bits as floats, from -128 on: to look one up is faster than to convert it. */
#define FOUR(x) (x), (x) + 1, (x) + 2, (x) + 3
#define SIXTEEN(x) FOUR(x), FOUR((x) + 4), FOUR((x) + 8), FOUR((x) + 12)
#define SIXTY_FOUR(x) SIXTEEN(x), SIXTEEN((x) + 16), SIXTEEN((x) + 32), SIXTEEN((x) + 48)
static const float whole[256] = {SIXTY_FOUR(-128), SIXTY_FOUR(-64), SIXTY_FOUR(0), SIXTY_FOUR(64)};

/* Eight numbers of a row, whatever the machine's vectors hold. */
typedef float V8 __attribute__((vector_size(32)));
#define EIGHT_OF(p) ((V8){(p)[0], (p)[1], (p)[2], (p)[3], (p)[4], (p)[5], (p)[6], (p)[7]})

/* Vectors of four floats that any compiler maps to what the machine has; NEON on ARM. */
typedef float V4 __attribute__((vector_size(16)));
typedef float V4u __attribute__((vector_size(16), aligned(4)));
typedef int32_t I4 __attribute__((vector_size(16)));
#define PICK4(mask, a, b) ((V4)(((mask) & (I4)(a)) | (~(mask) & (I4)(b))))
#define NAME(x) x##_plain
#define TITLE "plain"
#define TARGET
#define V V4
#define LANES 4
#if defined(__aarch64__)
#define WIDE {12, 10, 6}
#else
#define WIDE {12, 5, 3}
#endif
#define LOAD(p) ((V4) * (const V4u *)(p))
#define STORE(p, v) (*(V4u *)(p) = (v))
#define SET1(x) ((V4){(x), (x), (x), (x)})
#define ADD(a, b) ((a) + (b))
#define FMA(a, b, c) ((a) * (b) + (c))
#define MAX(a, b) PICK4((a) > (b), a, b)
#define MIN(a, b) PICK4((a) < (b), a, b)
#define WIDEN(p) EIGHT_OF(p)
#include "lanes.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define EIGHT_AT_ONCE(p) \
    ((V8)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p)))))
#define NAME(x) x##_avx2
#define TITLE "avx2"
#define TARGET __attribute__((target("avx2,fma")))
#define V __m256
#define LANES 8
#define WIDE {12, 5, 3}
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, v) _mm256_storeu_ps(p, v)
#define SET1(x) _mm256_set1_ps(x)
#define ADD(a, b) _mm256_add_ps(a, b)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define MAX(a, b) _mm256_max_ps(a, b)
#define MIN(a, b) _mm256_min_ps(a, b)
#define WIDEN(p) EIGHT_AT_ONCE(p)
#include "lanes.h"
#define NAME(x) x##_avx512
#define TITLE "avx512"
#define TARGET __attribute__((target("avx512f,avx512dq")))
#define V __m512
#define LANES 16
#define WIDE {12, 10, 6}
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, v) _mm512_storeu_ps(p, v)
#define SET1(x) _mm512_set1_ps(x)
#define ADD(a, b) _mm512_add_ps(a, b)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define MAX(a, b) _mm512_max_ps(a, b)
#define MIN(a, b) _mm512_min_ps(a, b)
#define WIDEN(p) EIGHT_AT_ONCE(p)
#include "lanes.h"
#endif

#if defined(__x86_64__)
static const Kernels *const table[] = {&kernels_avx512, &kernels_avx2, &kernels_plain};
#else
static const Kernels *const table[] = {0, 0, &kernels_plain};
#endif
enum { AVX512, AVX2, PLAIN };

/* How many floats a vector of these instructions holds; 0 where the processor lacks them. */
int64_t lanes(int64_t instructions) {
    if (instructions < AVX512 || instructions > PLAIN || !table[instructions]) return 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const int wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
    if (instructions == AVX512 && !wide) return 0;
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (instructions == AVX2 && !avx2) return 0;
#endif
    return table[instructions]->lanes;
}

/* The most vectors of positions for 1, 2 or 4 filters that share theirs. */
int64_t widest(int64_t instructions, int64_t together) {
    return table[instructions]->wide[together / 2];
}

typedef struct { /* planes of one activation in the arena; floats */
    int64_t at;  /* of the first image's first position */
    int64_t image, plane, pitch, rows, columns, channels, head;
} Planes;

enum { PRODUCT, FOLD, POOL, MEAN, SUM, ROWS };

typedef struct {
    int64_t kind, instructions, items;
    Planes in, out, other;
    Layer layer;
    int64_t positions, vectors, together, chunk; /* of a layer */
    int64_t residual;                            /* whether `other` is added */
    int64_t window[2], stride[2], pad[2];        /* of a pool; a fold's window counts its phases */
    int64_t outside, strides[4];                 /* a fold's tensor that is not in the arena, or -1 */
    float low, high;
} Step;

typedef struct {
    const Step *steps;
    float *arena;
    float *const *outside;
} Job;

static void zero_gaps(const Planes *p, float *image, int64_t channel, int64_t positions) {
    float *plane = image + channel * p->plane;
    if (channel == 0) memset(image - p->head, 0, p->head * sizeof(float));
    memset(plane + positions, 0, (p->plane - positions) * sizeof(float));
}

static Tile tile_of(const Step *s, float *arena, int64_t image, int64_t at, int64_t first) {
    const int64_t end = first + s->chunk;
    return (Tile){
        .in = arena + s->in.at + image * s->in.image,
        .residual = s->residual ? arena + s->other.at + image * s->other.image : 0,
        .out = arena + s->out.at + image * s->out.image,
        .out_plane = s->out.plane,
        .residual_plane = s->other.plane,
        .at = at,
        .first = first,
        .last = end < s->layer.groups ? end : s->layer.groups,
    };
}

static void product_item(const Step *s, float *arena, int64_t item) {
    const Kernels *kernels = table[s->instructions];
    const int64_t width = s->vectors * kernels->lanes;
    const int64_t tiles = (s->positions + width - 1) / width;
    const int64_t chunks = (s->layer.groups + s->chunk - 1) / s->chunk;
    const int64_t image = item / (tiles * chunks), rest = item % (tiles * chunks);
    const int64_t at = rest / chunks * width;
    const int64_t left = (s->positions - at + kernels->lanes - 1) / kernels->lanes;
    const Tile t = tile_of(s, arena, image, at, rest % chunks * s->chunk);
    kernels->tiles[s->layer.scale != 0][s->together / 2][(left < s->vectors ? left : s->vectors) - 1](&s->layer, &t);
    if (at + width >= s->positions)
        for (int64_t f = t.first * s->together; f < t.last * s->together; f++)
            zero_gaps(&s->out, t.out, s->layer.filters[f], s->positions);
}

static void rows_item(const Step *s, float *arena, int64_t item) {
    const Tile t = tile_of(s, arena, 0, 0, item * s->chunk);
    table[s->instructions]->rows[s->layer.scale != 0][s->together / 2](&s->layer, &t);
}

/* Copy one channel of a tensor, or of one phase of it, into a plane with zeros around. */
static void fold_item(const Step *s, float *arena, float *const *outside, int64_t item) {
    const int64_t image = item / s->out.channels, channel = item % s->out.channels;
    const int64_t phases = s->window[0] * s->window[1];
    const int64_t phase = channel % phases, from = channel / phases;
    const int64_t y0 = phase / s->window[1] - s->pad[0], x0 = phase % s->window[1] - s->pad[1];
    const int64_t first = x0 < 0 ? (-x0 + s->stride[1] - 1) / s->stride[1] : 0;
    const int64_t fit = x0 < s->in.columns ? (s->in.columns - 1 - x0) / s->stride[1] + 1 : 0;
    const int64_t end = fit < s->out.columns ? fit : s->out.columns;
    const float *in = (s->outside < 0 ? arena + s->in.at : outside[s->outside]) +
                      image * s->strides[0] + from * s->strides[1];
    float *to = arena + s->out.at + image * s->out.image;
    float *plane = to + channel * s->out.plane;
    for (int64_t y = 0; y < s->out.rows; y++) {
        const int64_t row = y0 + y * s->stride[0];
        float *line = plane + y * s->out.pitch;
        if (row < 0 || row >= s->in.rows || end <= first) {
            memset(line, 0, s->out.pitch * sizeof(float));
            continue;
        }
        const float *from_row = in + row * s->strides[2] + x0 * s->strides[3];
        const int64_t step = s->stride[1] * s->strides[3];
        for (int64_t x = 0; x < first; x++) line[x] = 0;
        if (step == 1)
            memcpy(line + first, from_row + first, (end - first) * sizeof(float));
        else if (step == 2) /* said apart, so that it becomes shuffles */
            for (int64_t x = first; x < end; x++) line[x] = from_row[x * 2];
        else
            for (int64_t x = first; x < end; x++) line[x] = from_row[x * step];
        for (int64_t x = end; x < s->out.pitch; x++) line[x] = 0;
    }
    zero_gaps(&s->out, to, channel, s->out.rows * s->out.pitch);
}

/* Raise line[first] to line[end - 1] to every step-th of the source; NaN wins, as in torch. */
static inline __attribute__((always_inline)) void raise(float *restrict line,
                                                        const float *restrict source, int64_t first,
                                                        int64_t end, int64_t step) {
    for (int64_t x = first; x < end; x++) {
        const float v = source[x * step];
        line[x] = ((v > line[x]) | (v != v)) ? v : line[x];
    }
}

/* The greatest of each window that lies inside. */
static void pool_item(const Step *s, float *arena, int64_t item) {
    const int64_t image = item / s->out.channels, channel = item % s->out.channels;
    const float *in = arena + s->in.at + image * s->in.image + channel * s->in.plane;
    float *to = arena + s->out.at + image * s->out.image;
    float *out = to + channel * s->out.plane;
    for (int64_t y = 0; y < s->out.rows; y++) {
        float *line = out + y * s->out.pitch;
        for (int64_t x = 0; x < s->out.columns; x++) line[x] = -INFINITY;
        for (int64_t x = s->out.columns; x < s->out.pitch; x++) line[x] = 0;
        for (int64_t ky = 0; ky < s->window[0]; ky++) {
            const int64_t row = y * s->stride[0] + ky - s->pad[0];
            if (row < 0 || row >= s->in.rows) continue;
            for (int64_t kx = 0; kx < s->window[1]; kx++) {
                const int64_t shift = kx - s->pad[1], step = s->stride[1];
                const int64_t first = shift < 0 ? (-shift + step - 1) / step : 0;
                const int64_t fit = (s->in.columns - 1 - shift) / step + 1;
                const int64_t end = s->in.columns - 1 < shift ? 0
                                    : fit < s->out.columns    ? fit
                                                              : s->out.columns;
                const float *source = in + row * s->in.pitch + shift;
                if (step == 1)
                    raise(line, source, first, end, 1);
                else if (step == 2)
                    raise(line, source, first, end, 2);
                else
                    raise(line, source, first, end, step);
            }
        }
    }
    zero_gaps(&s->out, to, channel, s->out.rows * s->out.pitch);
}

/* The mean of each plane, as a plane of one position. */
static void mean_item(const Step *s, float *arena, int64_t item) {
    const int64_t image = item / s->out.channels, channel = item % s->out.channels;
    const float *in = arena + s->in.at + image * s->in.image + channel * s->in.plane;
    float sums[8] = {0}, sum = 0;
    int64_t i = 0;
    const int64_t n = s->in.rows * s->in.pitch; /* the padding adds zeros */
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) sums[k] += in[i + k];
    for (; i < n; i++) sum += in[i];
    for (int k = 0; k < 8; k++) sum += sums[k];
    float *to = arena + s->out.at + image * s->out.image;
    to[channel * s->out.plane] = sum / (float)(s->in.rows * s->in.columns);
    zero_gaps(&s->out, to, channel, 1);
}

/* One activation plus another of the same layout, clamped. */
static void sum_item(const Step *s, float *arena, int64_t item) {
    const int64_t image = item / s->out.channels, channel = item % s->out.channels;
    const float *a = arena + s->in.at + image * s->in.image + channel * s->in.plane;
    const float *b = arena + s->other.at + image * s->other.image + channel * s->other.plane;
    float *to = arena + s->out.at + image * s->out.image;
    float *out = to + channel * s->out.plane;
    const int64_t n = s->out.rows * s->out.pitch;
    for (int64_t i = 0; i < n; i++) {
        const float sum = a[i] + (s->residual ? b[i] : 0);
        const float low = s->low > sum ? s->low : sum;
        out[i] = s->high < low ? s->high : low;
    }
    zero_gaps(&s->out, to, channel, n);
}

static void do_item(const void *given, int64_t step, int64_t item) {
    const Job *job = given;
    const Step *s = job->steps + step;
    switch (s->kind) {
        case PRODUCT: product_item(s, job->arena, item); break;
        case FOLD: fold_item(s, job->arena, job->outside, item); break;
        case POOL: pool_item(s, job->arena, item); break;
        case MEAN: mean_item(s, job->arena, item); break;
        case SUM: sum_item(s, job->arena, item); break;
        default: rows_item(s, job->arena, item);
    }
}

/* Run all steps, on at most so many threads, the caller's among them; 0, or -1 without memory. */
int64_t run(const Step *steps, int64_t count, float *arena, float *const *outside, int64_t threads) {
    Run *r = run_new(count, (int)threads);
    if (!r) return -1;
    const Job job = {steps, arena, outside};
    r->work = do_item;
    r->job = &job;
    for (int64_t s = 0; s < count; s++) run_items(r, s, steps[s].items);
    team_do(r);
    return 0;
}

int64_t step_size(void) { return sizeof(Step); }
