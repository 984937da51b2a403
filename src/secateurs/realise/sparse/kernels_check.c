/* Checks the kernels against a triple loop in double: random layers, every set of instructions.
 *
 *     cc -O1 -std=gnu11 -pthread kernels_check.c -o check -lm && ./check [layers]
 *
 * A program of its own, so that it runs under sanitizers and on emulated processors without
 * Python. What lies between planes is NaN: it must not reach an output, nor be overwritten.
 */
#include <stdio.h>

#include "kernels.c"

enum { ALIGN = 16, MOST_OUT = 24, MOST_COLUMNS = 12 * 5 * 5 };

static uint64_t state = 1;
static int64_t below(int64_t n) { /* a number from 0 to n - 1 */
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((state >> 33) % (uint64_t)n);
}
static float value(void) { return (float)(below(2001) - 1000) / 512; }
static int64_t up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

typedef struct {
    int64_t images, inputs, filters, rows, columns, kernel, blocks, together, residual;
    int32_t tap[MOST_COLUMNS][3]; /* a column's channel, row shift and column shift */
    float weight[MOST_OUT][MOST_COLUMNS], bias[MOST_OUT], scale[MOST_OUT];
    int small; /* weights are whole steps of 8 bits, of so much each */
    float low, high;
} Case;

static Case random_case(void) {
    Case c = {
        .images = 1 + below(2), .inputs = 1 + below(12), .filters = 1 + below(MOST_OUT),
        .rows = 1 + below(7), .columns = 1 + below(40), .kernel = 1 + 2 * below(3),
        .together = (int64_t[]){1, 2, 4}[below(3)], .residual = below(2),
        .low = below(2) ? 0 : -INFINITY, .high = below(2) ? 6 : INFINITY,
    };
    if (!below(4)) c.images = c.rows = c.columns = c.kernel = 1; /* a row of weights at a time */
    c.blocks = c.rows * c.columns > 1 ? 1 + below(3) : 1;
    c.small = c.kernel == 1 && below(2);
    const int64_t half = c.kernel / 2, density = below(5);
    for (int64_t i = 0; i < c.inputs * c.kernel * c.kernel; i++) {
        c.tap[i][0] = (int32_t)(i / (c.kernel * c.kernel));
        c.tap[i][1] = (int32_t)(i / c.kernel % c.kernel - half);
        c.tap[i][2] = (int32_t)(i % c.kernel - half);
        for (int64_t f = 0; f < c.filters; f++)
            c.weight[f][i] = below(4) >= density ? 0 /* density 0 and 1 included */
                             : c.small           ? (float)(below(256) - 128)
                                                 : value();
    }
    for (int64_t f = 0; f < c.filters; f++) c.bias[f] = value(), c.scale[f] = value() / 64;
    return c;
}

static Planes planes(const Case *c, int64_t at, int64_t channels) {
    const int64_t half = c->kernel / 2, pitch = c->columns + half;
    if (c->images * c->rows * c->columns == 1 && !half)
        return (Planes){at, channels, 1, 1, 1, 1, channels, 0};
    const int64_t reach = half * pitch + half, room = reach > ALIGN ? reach : ALIGN;
    const int64_t plane = (up(c->rows * pitch + room, ALIGN) / ALIGN | 1) * ALIGN;
    const int64_t head = up(reach, ALIGN);
    const int64_t image = up(head + channels * plane, ALIGN);
    return (Planes){at + head, image, plane, pitch, c->rows, c->columns, channels, head};
}

/* Write the non-zero columns of every group of filters, block by block; return how many. */
static int64_t encode(const Case *c, const Planes *in, int32_t *starts, int32_t *offsets,
                      float *values, uint16_t *channels, int8_t *steps, int32_t *filters,
                      int64_t groups) {
    const int64_t columns = c->inputs * c->kernel * c->kernel, R = c->together;
    const int64_t block = (columns + c->blocks - 1) / c->blocks;
    int64_t count = 0;
    for (int64_t i = 0; i < groups * R; i++)
        filters[i] = (int32_t)(i < c->filters ? i : c->filters - 1);
    for (int64_t b = 0; b < c->blocks; b++)
        for (int64_t g = 0; g <= groups; g++) {
            starts[b * (groups + 1) + g] = (int32_t)count;
            for (int64_t i = b * block; g < groups && i < (b + 1) * block && i < columns; i++) {
                int used = 0;
                for (int64_t r = 0; r < R; r++) used |= c->weight[filters[g * R + r]][i] != 0;
                if (!used) continue;
                for (int64_t r = 0; r < R; r++) {
                    const float w = values[count * R + r] = c->weight[filters[g * R + r]][i];
                    if (c->small) steps[count * R + r] = (int8_t)w;
                }
                channels[count] = (uint16_t)c->tap[i][0];
                const int64_t shift = c->tap[i][1] * in->pitch + c->tap[i][2];
                offsets[count++] = (int32_t)(c->tap[i][0] * in->plane + shift);
            }
        }
    return count;
}

static double wanted(const Case *c, const Planes *in, const Planes *other, const float *arena,
                     int64_t image, int64_t f, int64_t y, int64_t x) {
    const double scale = c->small ? c->scale[f] : 1;
    double sum = c->bias[f];
    if (c->residual)
        sum += arena[other->at + image * other->image + f * other->plane + y * other->pitch + x];
    for (int64_t i = 0; i < c->inputs * c->kernel * c->kernel; i++) {
        const int64_t row = y + c->tap[i][1], column = x + c->tap[i][2];
        if (row < 0 || row >= c->rows || column < 0 || column >= c->columns) continue;
        sum += scale * c->weight[f][i] * arena[in->at + image * in->image +
                                               c->tap[i][0] * in->plane + row * in->pitch + column];
    }
    return fmin(fmax(sum, c->low), c->high);
}

/* Fill an activation: numbers where it has positions, zeros where filters reach over. */
static void fill(const Planes *p, float *arena, int64_t images) {
    for (int64_t i = 0; i < images; i++) {
        float *image = arena + p->at + i * p->image;
        for (int64_t k = -p->head; k < p->channels * p->plane; k++) image[k] = 0;
        for (int64_t c = 0; c < p->channels; c++)
            for (int64_t y = 0; y < p->rows; y++)
                for (int64_t x = 0; x < p->columns; x++)
                    image[c * p->plane + y * p->pitch + x] = value();
    }
}

static int check(const Case *c, int64_t instructions, int64_t threads) {
    const Planes in = planes(c, 2 * ALIGN, c->inputs);
    const int64_t behind = in.at - in.head + up(c->images * in.image, ALIGN) + 2 * ALIGN;
    const Planes other = planes(c, behind, c->filters);
    const int64_t after = other.at - other.head + up(c->images * other.image, ALIGN) + 2 * ALIGN;
    const Planes out = planes(c, after, c->filters);
    const int64_t end = out.at - out.head + up(c->images * out.image, ALIGN);
    float *arena = malloc((size_t)(end + 16 * ALIGN) * sizeof(float));
    for (int64_t i = 0; i < end + 16 * ALIGN; i++) arena[i] = NAN;
    fill(&in, arena, c->images);
    fill(&other, arena, c->images);

    const int64_t R = c->together, groups = (c->filters + R - 1) / R;
    const int64_t most = groups * c->inputs * c->kernel * c->kernel + 1;
    int32_t *starts = malloc((size_t)(c->blocks * (groups + 1)) * 4);
    int32_t *offsets = malloc((size_t)most * 4), *filters = malloc((size_t)(groups * R) * 4);
    float *values = malloc((size_t)(most * R) * 4);
    uint16_t *channels = malloc((size_t)most * 2);
    int8_t *steps = malloc((size_t)(most * R));
    encode(c, &in, starts, offsets, values, channels, steps, filters, groups);

    const int64_t positions = out.rows * out.pitch, wide = lanes(instructions);
    const int64_t vectors = 1 + below(widest(instructions, R)), chunk = 1 + below(groups);
    Step s = {
        .kind = out.plane == 1 ? ROWS : PRODUCT, .instructions = instructions,
        .in = in, .out = out, .other = other,
        .layer = {.blocks = c->blocks, .groups = groups, .starts = starts, .filters = filters,
                  .bias = c->bias, .columns = out.columns, .pitch = out.pitch,
                  .low = c->low, .high = c->high},
        .positions = positions, .vectors = vectors, .together = R, .chunk = chunk,
        .residual = c->residual, .outside = -1,
    };
    if (c->small)
        s.layer.channels = channels, s.layer.steps = steps, s.layer.scale = c->scale,
        s.layer.plane = in.plane;
    else
        s.layer.offsets = offsets, s.layer.values = values;
    const int64_t tiles = (positions + vectors * wide - 1) / (vectors * wide);
    s.items = (s.kind == ROWS ? 1 : c->images * tiles) * ((groups + chunk - 1) / chunk);
    int wrong = run(&s, 1, arena, 0, threads) != 0;

    for (int64_t i = 0; i < c->images; i++)
        for (int64_t f = 0; f < c->filters; f++)
            for (int64_t k = 0; k < out.plane; k++) {
                const int64_t y = k / out.pitch, x = k % out.pitch;
                const int inside = y < c->rows && x < c->columns;
                const double want = inside ? wanted(c, &in, &other, arena, i, f, y, x) : 0;
                const double got = arena[out.at + i * out.image + f * out.plane + k];
                wrong |= !(fabs(got - want) <= 1e-4 * (1 + fabs(want)));
            }
    for (int64_t i = 1; i <= 2 * ALIGN; i++) wrong |= !isnan(arena[after - i]);
    for (int64_t i = end; i < end + 16 * ALIGN; i++) wrong |= !isnan(arena[i]);
    if (wrong)
        printf("wrong: %s, %d filters together, %d vectors, %d blocks, %d x %d, kernel %d, %d bits\n",
               table[instructions]->name, (int)R, (int)vectors, (int)c->blocks, (int)c->rows,
               (int)c->columns, (int)c->kernel, c->small ? 8 : 32);
    free(arena), free(starts), free(offsets), free(filters), free(values);
    free(channels), free(steps);
    return wrong;
}

int main(int count, char **words) {
    const int cases = count > 1 ? atoi(words[1]) : 200;
    int wrong = 0;
    for (int64_t instructions = AVX512; instructions <= PLAIN; instructions++) {
        if (!lanes(instructions)) continue;
        for (int i = 0; i < cases; i++) {
            const Case c = random_case();
            wrong += check(&c, instructions, 1 + i % 3);
        }
        printf("%s: %d layers\n", table[instructions]->name, cases);
    }
    printf("%d wrong\n", wrong);
    return wrong > 0;
}
