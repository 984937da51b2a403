/* The product of one sparse layer, for one width of vector; included once for each.
 *
 * The including file defines, and this one forgets again,
 *   NAME(x)   x with a suffix of its own          TARGET   the attribute that allows the instructions
 *   V, LANES  the vector and how many floats it holds
 *   LOAD, STORE, SET1, ADD, FMA(a, b, c) = a * b + c, MAX, MIN (the second where either is NaN)
 *   TITLE, WIDE   what to call it; how many vectors fit the registers for 1, 2 and 4 filters
 *
 * A tile is P vectors of neighbouring output positions. R filters that share their positions are
 * computed together: their R * P sums stay in registers while the entries of the group go by. An
 * entry adds `value * (the tile's positions of the input, shifted by offset)`.
 */

#define INLINE static inline __attribute__((always_inline)) TARGET
#define EACH(i, n) _Pragma("GCC unroll 32") for (int i = 0; i < (n); i++)
#define MOST 32

INLINE void NAME(entry)(const int R, const int P, V *sum, const float *x, const float *value) {
    V row[MOST];
    EACH(p, P) row[p] = LOAD(x + p * LANES);
    EACH(r, R) {
        const V w = SET1(value[r]);
        EACH(p, P) sum[r * P + p] = FMA(w, row[p], sum[r * P + p]);
    }
}

INLINE void NAME(tile)(const int R, const int P, const Layer *l, const Tile *t) {
    const float *in = t->in + t->at;
    for (int64_t block = 0; block < l->blocks; block++) {
        const int32_t *starts = l->starts + block * (l->groups + 1);
        const int last = block == l->blocks - 1;
        for (int64_t g = t->first; g < t->last; g++) {
            V sum[MOST];
            const int32_t *filters = l->filters + g * R;
            EACH(r, R) {
                float *out = t->out + filters[r] * t->out_plane + t->at;
                EACH(p, P) __builtin_prefetch(out + p * LANES, 1);
                EACH(p, P) sum[r * P + p] = block ? LOAD(out + p * LANES) : SET1(l->bias[filters[r]]);
            }
            const int32_t *offset = l->offsets + starts[g], *end = l->offsets + starts[g + 1];
            const float *value = l->values + (int64_t)starts[g] * R;
            if (R == 1) /* two at a time; with more filters the registers are full */
                for (; offset + 1 < end; offset += 2, value += 2) {
                    NAME(entry)(R, P, sum, in + offset[0], value);
                    NAME(entry)(R, P, sum, in + offset[1], value + 1);
                }
            for (; offset < end; offset++, value += R) NAME(entry)(R, P, sum, in + *offset, value);
            EACH(r, R) {
                float *out = t->out + filters[r] * t->out_plane + t->at;
                if (last && t->residual) {
                    const float *other = t->residual + filters[r] * t->residual_plane + t->at;
                    EACH(p, P) sum[r * P + p] = ADD(sum[r * P + p], LOAD(other + p * LANES));
                }
                if (last && l->low > -INFINITY)
                    EACH(p, P) sum[r * P + p] = MAX(SET1(l->low), sum[r * P + p]);
                if (last && l->high < INFINITY)
                    EACH(p, P) sum[r * P + p] = MIN(SET1(l->high), sum[r * P + p]);
                EACH(p, P) STORE(out + p * LANES, sum[r * P + p]);
                if (last && l->columns < l->pitch) zero_row_ends(l, t->at, P * LANES, out);
            }
        }
    }
}

/* One row of the sparse matrix after another, times one vector of inputs. */
INLINE void NAME(rows)(const int R, const Layer *l, const Tile *t) {
    const float *x = t->in;
    for (int64_t g = t->first; g < t->last; g++) {
        float sum[4 * MOST] = {0};
        const float *value = l->values + (int64_t)l->starts[g] * R;
        const int32_t *offset = l->offsets + l->starts[g], *end = l->offsets + l->starts[g + 1];
        for (; offset + 3 < end; offset += 4, value += 4 * R)
            EACH(i, 4) EACH(r, R) sum[i * R + r] += value[i * R + r] * x[offset[i]];
        for (; offset < end; offset++, value += R) EACH(r, R) sum[r] += value[r] * x[offset[0]];
        EACH(r, R) {
            const int32_t f = l->filters[g * R + r];
            const float other = t->residual ? t->residual[f * t->residual_plane] : 0;
            const float s = ((sum[r] + sum[R + r]) + (sum[2 * R + r] + sum[3 * R + r])) + (l->bias[f] + other);
            const float low = l->low > s ? l->low : s;
            t->out[f * t->out_plane] = l->high < low ? l->high : low;
        }
    }
}

#define TILES1(M) M(1, 1) M(1, 2) M(1, 3) M(1, 4) M(1, 5) M(1, 6) M(1, 7) M(1, 8) M(1, 9) M(1, 10) M(1, 11) M(1, 12)
#define TILES2(M) M(2, 1) M(2, 2) M(2, 3) M(2, 4) M(2, 5) M(2, 6) M(2, 7) M(2, 8) M(2, 9) M(2, 10)
#define TILES4(M) M(4, 1) M(4, 2) M(4, 3) M(4, 4) M(4, 5) M(4, 6)
#define DEFINE(R, P) \
    TARGET static void NAME(tile_##R##_##P)(const Layer *l, const Tile *t) { NAME(tile)(R, P, l, t); }
#define REFER(R, P) NAME(tile_##R##_##P),
#define ROWS(R) \
    TARGET static void NAME(rows_##R)(const Layer *l, const Tile *t) { NAME(rows)(R, l, t); }
TILES1(DEFINE) TILES2(DEFINE) TILES4(DEFINE)
ROWS(1) ROWS(2) ROWS(4)

static const Kernels NAME(kernels) = {
    .name = TITLE,
    .lanes = LANES,
    .wide = WIDE,
    .tiles = {{TILES1(REFER)}, {TILES2(REFER)}, {TILES4(REFER)}},
    .rows = {NAME(rows_1), NAME(rows_2), NAME(rows_4)},
};

#undef INLINE
#undef DEFINE
#undef REFER
#undef ROWS
#undef NAME
#undef TITLE
#undef TARGET
#undef V
#undef LANES
#undef WIDE
#undef LOAD
#undef STORE
#undef SET1
#undef ADD
#undef FMA
#undef MAX
#undef MIN
