/* The product of one sparse layer, for one width of vector; included once for each.
 *
 * The including file defines, and this one forgets again,
 *   NAME(x)   x with a suffix of its own          TARGET   the attribute that allows the instructions
 *   V, LANES  the vector and how many floats it holds
 *   LOAD, STORE, SET1, ADD, FMA(a, b, c) = a * b + c, MAX, MIN (the second where either is NaN)
 *   WIDEN(p)  eight floats, V8, from eight whole numbers of 8 bits
 *   TITLE, WIDE   what to call it; how many vectors fit the registers for 1, 2 and 4 filters
 *
 * A tile is P vectors of neighbouring output positions. R filters that share their positions are
 * computed together: their R * P sums stay in registers while the entries of the group go by. An
 * entry adds `value * (the tile's positions of the input, shifted by offset)`.
 */

#define INLINE static inline __attribute__((always_inline)) TARGET
#define EACH(i, n) _Pragma("GCC unroll 32") for (int i = 0; i < (n); i++)
#define MOST 32

INLINE void NAME(entry)(const int R, const int P, const int small, const Layer *l, V *sum,
                        const float *in, int64_t e) {
    const float *x = in + (small ? l->channels[e] * l->plane : l->offsets[e]);
    V row[MOST];
    EACH(p, P) row[p] = LOAD(x + p * LANES);
    EACH(r, R) {
        const V w = SET1(small ? whole[l->steps[e * R + r] + 128] : l->values[e * R + r]);
        EACH(p, P) sum[r * P + p] = FMA(w, row[p], sum[r * P + p]);
    }
}

INLINE void NAME(tile)(const int R, const int P, const int small, const Layer *l, const Tile *t) {
    const float *in = t->in + t->at;
    const int sets = R * P > 4 ? 1 : R * P > 2 ? 2 : 4; /* sums that do not wait for each other */
    const int step = R == 1 && sets == 1 ? 2 : sets;
    for (int64_t block = 0; block < l->blocks; block++) {
        const int32_t *starts = l->starts + block * (l->groups + 1);
        const int last = block == l->blocks - 1;
        for (int64_t g = t->first; g < t->last; g++) {
            V sum[MOST];
            const int32_t *filters = l->filters + g * R;
            EACH(r, R) {
                float *out = t->out + filters[r] * t->out_plane + t->at;
                EACH(p, P) __builtin_prefetch(out + p * LANES, 1);
                const V bias = SET1(small ? 0 : l->bias[filters[r]]);
                EACH(p, P) sum[r * P + p] = block ? LOAD(out + p * LANES) : bias;
            }
            EACH(i, R * P * (sets - 1)) sum[R * P + i] = SET1(0);
            const int64_t end = starts[g + 1];
            int64_t e = starts[g];
            for (; e + step <= end; e += step)
                EACH(i, step) NAME(entry)(R, P, small, l, sum + i % sets * R * P, in, e + i);
            for (; e < end; e++) NAME(entry)(R, P, small, l, sum, in, e);
            EACH(i, R * P * (sets - 1)) sum[i % (R * P)] = ADD(sum[i % (R * P)], sum[R * P + i]);
            EACH(r, R) {
                float *out = t->out + filters[r] * t->out_plane + t->at;
                if (last && small) {
                    const V scale = SET1(l->scale[filters[r]]), bias = SET1(l->bias[filters[r]]);
                    EACH(p, P) sum[r * P + p] = FMA(scale, sum[r * P + p], bias);
                }
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

/* Eight values of one group, times the inputs that they read. */
INLINE void NAME(eight)(const int R, const int small, const Layer *l, V8 *sum, const float *x,
                        int64_t e) {
    V8 value;
    if (small)
        value = WIDEN(l->steps + e * R);
    else
        memcpy(&value, l->values + e * R, sizeof(value));
#define READ(i) x[small ? l->channels[e + (i) / R] : l->offsets[e + (i) / R]]
    *sum += value * (V8){READ(0), READ(1), READ(2), READ(3), READ(4), READ(5), READ(6), READ(7)};
#undef READ
}

/* One row of the sparse matrix after another, times one vector of inputs. */
INLINE void NAME(rows)(const int R, const int small, const Layer *l, const Tile *t) {
    const float *x = t->in;
    for (int64_t g = t->first; g < t->last; g++) {
        V8 sums[2] = {0};
        int64_t e = l->starts[g];
        const int64_t end = l->starts[g + 1];
        for (; e + 16 / R <= end; e += 16 / R)
            EACH(i, 2) NAME(eight)(R, small, l, sums + i, x, e + i * 8 / R);
        if (e + 8 / R <= end) NAME(eight)(R, small, l, sums, x, e), e += 8 / R;
        sums[0] += sums[1];
        EACH(r, R) {
            float s = 0;
            for (int i = r; i < 8; i += R) s += sums[0][i];
            for (int64_t i = e; i < end; i++)
                s += small ? l->steps[i * R + r] * x[l->channels[i]] : l->values[i * R + r] * x[l->offsets[i]];
            const int32_t f = l->filters[g * R + r];
            const float other = t->residual ? t->residual[f * t->residual_plane] : 0;
            s = s * (small ? l->scale[f] : 1) + (l->bias[f] + other);
            const float low = l->low > s ? l->low : s;
            t->out[f * t->out_plane] = l->high < low ? l->high : low;
        }
    }
}

#define TILES1(M) M(1, 1) M(1, 2) M(1, 3) M(1, 4) M(1, 5) M(1, 6) M(1, 7) M(1, 8) M(1, 9) M(1, 10) M(1, 11) M(1, 12)
#define TILES2(M) M(2, 1) M(2, 2) M(2, 3) M(2, 4) M(2, 5) M(2, 6) M(2, 7) M(2, 8) M(2, 9) M(2, 10)
#define TILES4(M) M(4, 1) M(4, 2) M(4, 3) M(4, 4) M(4, 5) M(4, 6)
#define DEFINE(R, P)                                                                                     \
    TARGET static void NAME(tile_##R##_##P)(const Layer *l, const Tile *t) { NAME(tile)(R, P, 0, l, t); } \
    TARGET static void NAME(small_##R##_##P)(const Layer *l, const Tile *t) { NAME(tile)(R, P, 1, l, t); }
#define TILE(R, P) NAME(tile_##R##_##P),
#define SMALL(R, P) NAME(small_##R##_##P),
#define ROWS(R)                                                                                    \
    TARGET static void NAME(rows_##R)(const Layer *l, const Tile *t) { NAME(rows)(R, 0, l, t); }     \
    TARGET static void NAME(small_rows_##R)(const Layer *l, const Tile *t) { NAME(rows)(R, 1, l, t); }
TILES1(DEFINE) TILES2(DEFINE) TILES4(DEFINE)
ROWS(1) ROWS(2) ROWS(4)

static const Kernels NAME(kernels) = {
    .name = TITLE,
    .lanes = LANES,
    .wide = WIDE,
    .tiles = {{{TILES1(TILE)}, {TILES2(TILE)}, {TILES4(TILE)}},
              {{TILES1(SMALL)}, {TILES2(SMALL)}, {TILES4(SMALL)}}},
    .rows = {{NAME(rows_1), NAME(rows_2), NAME(rows_4)},
             {NAME(small_rows_1), NAME(small_rows_2), NAME(small_rows_4)}},
};

#undef INLINE
#undef DEFINE
#undef TILE
#undef SMALL
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
#undef WIDEN
