/* What a sparse layer is, and what a tile of its output is. Lengths and strides count floats. */
#pragma once
#include <stdint.h>

typedef struct {
    int64_t blocks, groups; /* blocks of input channels; groups of filters that share positions */
    const int32_t *starts;  /* (blocks, groups + 1): where each group's entries begin */
    const int32_t *offsets; /* (entries,): from an output position to the input it reads */
    const float *values;    /* (entries, filters of a group) */
    const int32_t *filters; /* (groups, filters of a group): their planes in the output */
    const float *bias;      /* (filters,) */
    int64_t columns, pitch; /* of the output: what lies between a row's end and the next is padding */
    float low, high;        /* the output is clamped to these */
    /* Where `scale` is given, 8-bit weights take the place of offsets and values. */
    const uint16_t *channels; /* (entries,): planes of the input, read at the output's own position */
    const int8_t *steps;      /* (entries, filters of a group): values, in steps of */
    const float *scale;       /* (filters,) */
    int64_t plane;            /* from one plane of the input to the next */
} Layer;

typedef struct {
    const float *in, *residual; /* one image's first position */
    float *out;
    int64_t out_plane, residual_plane;
    int64_t at, first, last; /* the first position; the groups of filters */
} Tile;

#define WIDEST 12
typedef void (*TileFunction)(const Layer *, const Tile *);

typedef struct {
    const char *name;
    int64_t lanes;
    int64_t wide[3];                  /* the most vectors that stay in registers */
    TileFunction tiles[2][3][WIDEST]; /* of floats, of 8 bits; for 1, 2 and 4 filters; for 1, 2, ... vectors */
    TileFunction rows[2][3];          /* the same for a single position */
} Kernels;
