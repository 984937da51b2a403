/* A sparse 1 x 1 convolution in float32, against one whose inputs have 8 bits as well.
 *
 *     cc -O3 -std=gnu11 eight_bits_inputs.c -o tiles && ./tiles
 *
 * For processors with AVX2 and no VNNI. Inputs of 8 bits lie four channels side by side; an entry
 * is four weights, of which one or more are not zero. Rounding and interleaving them is not timed.
 */
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define TARGET __attribute__((target("avx2,fma")))
#define EACH(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); i++)
enum { COPIES = 8, ROUNDS = 6 }; /* of the weights, so that they come from beyond the second cache */

typedef struct {
    int filters, channels, plane;
    int32_t *starts, *offsets, *quad_starts, *quad_offsets, *quads;
    float *values;
} Weights;
typedef void (*Tile)(const Weights *, const void *, float *, int at);

#define DEFINE(P)                                                                                  \
    TARGET static void floats_##P(const Weights *w, const void *in, float *out, int at) {          \
        for (int f = 0; f < w->filters; f++) {                                                     \
            __m256 sum[P];                                                                         \
            EACH(p, P) sum[p] = _mm256_setzero_ps();                                               \
            for (int e = w->starts[f]; e < w->starts[f + 1]; e++) {                                \
                const float *x = (const float *)in + at + w->offsets[e];                           \
                const __m256 v = _mm256_broadcast_ss(w->values + e);                               \
                EACH(p, P) sum[p] = _mm256_fmadd_ps(v, _mm256_loadu_ps(x + p * 8), sum[p]);        \
            }                                                                                      \
            EACH(p, P) _mm256_storeu_ps(out + f * w->plane + at + p * 8, sum[p]);                  \
        }                                                                                          \
    }                                                                                              \
    TARGET static void bytes_##P(const Weights *w, const void *in, float *out, int at) {           \
        const __m256i one = _mm256_set1_epi16(1);                                                  \
        for (int f = 0; f < w->filters; f++) {                                                     \
            __m256i sum[P];                                                                        \
            EACH(p, P) sum[p] = _mm256_setzero_si256();                                            \
            for (int e = w->quad_starts[f]; e < w->quad_starts[f + 1]; e++) {                      \
                const uint8_t *x = (const uint8_t *)in + at * 4 + w->quad_offsets[e];              \
                const __m256i v = _mm256_set1_epi32(w->quads[e]);                                  \
                EACH(p, P) {                                                                       \
                    const __m256i row = _mm256_loadu_si256((const __m256i *)(x + p * 32));         \
                    const __m256i pairs = _mm256_maddubs_epi16(row, v);                            \
                    sum[p] = _mm256_add_epi32(sum[p], _mm256_madd_epi16(pairs, one));              \
                }                                                                                  \
            }                                                                                      \
            EACH(p, P) _mm256_storeu_ps(out + f * w->plane + at + p * 8, _mm256_cvtepi32_ps(sum[p])); \
        }                                                                                          \
    }
DEFINE(4) DEFINE(7) DEFINE(12)

static Weights weights(int filters, int channels, int plane, double density) {
    const size_t most = (size_t)filters * channels;
    Weights w = {filters, channels, plane,
                 malloc((filters + 1) * 4), malloc(most * 4), malloc((filters + 1) * 4),
                 malloc(most), malloc(most), malloc(most * 4)};
    int count = 0, quads = 0;
    for (int f = 0; f < filters; f++) {
        w.starts[f] = count, w.quad_starts[f] = quads;
        uint32_t quad = 0;
        for (int c = 0; c < channels; c++) {
            if (rand() < density * RAND_MAX) {
                const int step = 1 + rand() % 63; /* of 7 bits: sums of two must fit 16 */
                w.offsets[count] = c * plane, w.values[count++] = step;
                quad |= (uint32_t)step << c % 4 * 8;
            }
            if (c % 4 < 3 || !quad) continue;
            w.quad_offsets[quads] = c / 4 * plane * 4, w.quads[quads++] = (int32_t)quad;
            quad = 0;
        }
    }
    w.starts[filters] = count, w.quad_starts[filters] = quads;
    return w;
}

static double best(Tile tile, const Weights *w, const void *in, float *out, int positions, int P) {
    double least = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        for (int i = 0; i < COPIES; i++)
            for (int at = 0; at < positions; at += P * 8) tile(w + i, in, out, at);
        clock_gettime(CLOCK_MONOTONIC, &b);
        const double s = (b.tv_sec - a.tv_sec + 1e-9 * (b.tv_nsec - a.tv_nsec)) / COPIES;
        if (s < least) least = s;
    }
    return 1e6 * least;
}

int main(void) {
    const int shapes[][4] = {{512, 2048, 49, 80}, {2048, 512, 49, 80}, {1024, 256, 196, 240}, {256, 64, 3136, 3152}};
    const double densities[] = {0.05, 0.1, 0.2};
    for (int s = 0; s < 4; s++)
        for (int d = 0; d < 3; d++) {
            const int channels = shapes[s][0], filters = shapes[s][1], plane = shapes[s][3];
            Weights w[COPIES];
            for (int i = 0; i < COPIES; i++) w[i] = weights(filters, channels, plane, densities[d]);
            float *in = calloc((size_t)channels * plane + 512, 4);
            float *out = calloc((size_t)filters * plane + 512, 4);
            const Tile floats[] = {floats_4, floats_7, floats_12}, bytes[] = {bytes_4, bytes_7, bytes_12};
            const int wide[] = {4, 7, 12};
            double f = 1e9, b = 1e9;
            for (int i = 0; i < 3; i++) {
                const double one = best(floats[i], w, in, out, shapes[s][2], wide[i]);
                const double two = best(bytes[i], w, in, out, shapes[s][2], wide[i]);
                f = one < f ? one : f, b = two < b ? two : b;
            }
            printf("| %d to %d, %d positions | %.0f %% | %.0f | %.0f | %.2fx |\n", channels, filters,
                   shapes[s][2], 100 * densities[d], f, b, f / b);
            fflush(stdout);
        }
    return 0;
}
