/* The context coder: one binary range coder, and three models that tell it what to expect.
 *
 * docs/format.md describes every step; reference.py is the same thing in Python, used where no
 * compiler was found, and a test holds the two to the same bytes. Integers only; >> of a negative
 * number rounds down. Each model is written once: `code` writes the bit it is given, or ignores
 * it and returns the bit it read.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

/* A counter. chance: of a one, in 22 bits; seen: bits, up to 1023; says: what it tells a mixer, which
 * follows from the others and is kept because the next bit waits for it. */
typedef struct {
  int32_t chance;
  uint16_t seen;
  int16_t says;
} cell;

enum { TOO_LONG = -1, NO_MEMORY = -2, INPUTS = 5, REACH = 2559, HEAVY = 1 << 20 };
static const cell FRESH = {1 << 21, 0, 0}; /* one half, never visited */

/* 65536 / (1 + exp(-x)) for x = 0, 1/2, 1, ... 10; a step is 128 of our units, so x = 256 is 1 */
static const int32_t LOGISTIC[21] = {
    32768, 40793, 47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374,
    65438, 65476, 65500, 65514, 65523, 65528, 65531, 65533};

/* Together they stay in the nearest cache. */
static uint16_t squash_table[2 * REACH + 1];
static int16_t stretch_table[4096];
static uint16_t rate_table[1024];
static uint8_t trust_table[1024];
static uint8_t haste_table[1024];

static int32_t squash(int x) { return squash_table[x + REACH]; }

EXPORT void prepare(void) {
  for (int x = 0; x <= REACH; x++) {
    int i = x >> 7, f = x & 127;
    int p = LOGISTIC[i] + (((LOGISTIC[i + 1] - LOGISTIC[i]) * f) >> 7);
    squash_table[REACH + x] = (uint16_t)p;
    squash_table[REACH - x] = (uint16_t)(65536 - p);
  }
  int x = -REACH;
  for (int p = 0; p < 4096; p++) {
    while (x < REACH && squash(x) < 16 * p + 8) x++;
    stretch_table[p] = (int16_t)x;
  }
  for (int n = 0; n < 1024; n++) {
    rate_table[n] = (uint16_t)(131072 / (2 * n + 3));
    trust_table[n] = (uint8_t)(256 * n / (n + 3));
    haste_table[n] = (uint8_t)(2 + 1600 / (16 + n));
  }
}

/* ---- range coder ---------------------------------------------------------------------------- */

typedef struct {
  uint8_t *out;
  const uint8_t *in;
  int64_t size, at, pending;
  uint64_t low;
  uint32_t range, value;
  int cache;
} coder;

static void put(coder *c, int byte) {
  if (c->at >= 0 && c->at < c->size) c->out[c->at] = (uint8_t)byte;
  c->at++;
}

static void shift(coder *c) {
  if (c->low < 0xFF000000u || c->low >> 32) {
    int carry = (int)(c->low >> 32);
    put(c, c->cache + carry);
    for (; c->pending; c->pending--) put(c, 0xFF + carry);
    c->cache = (int)(c->low >> 24) & 0xFF;
  } else {
    c->pending++;
  }
  c->low = (c->low & 0x00FFFFFFu) << 8;
}

static uint8_t next(coder *c) { return c->at < c->size ? c->in[c->at++] : 0; }

static uint32_t four(const uint8_t *in) {
  return (uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 | (uint32_t)in[2] << 8 | in[3];
}

/* As many bytes as the range has room for, 0 to 2, without a branch that depends on them. */
static inline void refill(coder *c) {
  int bits = __builtin_clz(c->range) & 24;
  if (c->at + 4 <= c->size) {
    c->value = (uint32_t)(((uint64_t)c->value << 32 | four(c->in + c->at)) >> (32 - bits));
    c->at += bits >> 3;
  } else {
    for (int i = 0; i < bits; i += 8) c->value = c->value << 8 | next(c);
  }
  c->range <<= bits;
}

static coder start(int encode, uint8_t *bytes, int64_t size) {
  coder c = {bytes, bytes, size, encode ? -1 : 0, 0, 0, 0xFFFFFFFFu, 0, 0};
  if (!encode)
    for (int i = 0; i < 4; i++) c.value = c.value << 8 | next(&c);
  return c;
}

static int64_t finish(coder *c) {
  int zeros = 32;
  uint64_t end = c->low + c->range;
  for (;; zeros--) {
    uint64_t v = (c->low + ((1ull << zeros) - 1)) >> zeros << zeros;
    if (v < end) {
      c->low = v;
      break;
    }
  }
  for (int i = 0; i < 5; i++) shift(c);
  int64_t n = c->at;
  if (n > c->size) return TOO_LONG;
  while (n > 0 && c->out[n - 1] == 0) n--;
  return n;
}

static inline int code_at(coder *c, int encode, uint32_t p, int bit) {
  uint32_t bound = (uint32_t)(((uint64_t)c->range * p) >> 16);
  if (!encode) {
    uint32_t zero = -(uint32_t)(c->value >= bound);
    c->value -= bound & zero;
    c->range = bound + ((c->range - 2 * bound) & zero);
    refill(c);
    return 1 + (int)zero;
  }
  if (bit) {
    c->range = bound;
  } else {
    c->range -= bound;
    c->low += bound;
  }
  for (; c->range < (1u << 24); c->range <<= 8) shift(c);
  return bit;
}

/* ---- mixing --------------------------------------------------------------------------------- */

typedef struct {
  int64_t weight[INPUTS];
  int64_t seen;
} mixer; /* 65536 is a weight of one; the more a mixer has seen, the slower it learns */

static inline void learn(cell *k, int bit) {
  int32_t q = k->chance;
  uint32_t n = k->seen;
  q += (int32_t)(((int64_t)((-bit & 4194303) - q) * rate_table[n]) >> 16);
  n += n < 1023;
  k->chance = q;
  k->seen = (uint16_t)n;
  k->says = (int16_t)((stretch_table[q >> 10] * trust_table[n]) >> 8);
}

static inline int code(coder *c, int encode, mixer *m, cell *const *cells, int inputs, int bit) {
  int64_t s[INPUTS], x = 0;
  for (int i = 0; i < inputs; i++) {
    s[i] = cells[i]->says;
    x += m->weight[i] * s[i];
  }
  x >>= 16;
  x = x > REACH ? REACH : x < -REACH ? -REACH : x;
  int32_t p = squash((int)x);
  bit = code_at(c, encode, (uint32_t)p, bit);
  int64_t step = (int64_t)((bit << 16) - p) * haste_table[m->seen];
  m->seen += m->seen < 1023;
  for (int i = 0; i < inputs; i++) {
    int64_t w = m->weight[i] + ((s[i] * step + (1 << 17)) >> 18);
    if (__builtin_expect((uint64_t)(w + HEAVY) > 2 * HEAVY, 0)) w = w > HEAVY ? HEAVY : -HEAVY;
    m->weight[i] = w;
  }
  for (int i = 0; i < inputs; i++) learn(cells[i], bit);
  return bit;
}

static void fresh(cell *cells, int64_t n) {
  for (int64_t i = 0; i < n; i++) cells[i] = FRESH;
}

static void even(mixer *m, int n) {
  for (int j = 0; j < n; j++) {
    for (int i = 0; i < INPUTS; i++) m[j].weight[i] = 26214;
    m[j].seen = 0;
  }
}

/* ---- masks: (rows, columns) of zeros and ones ------------------------------------------------ */

/* Which lines (rows or columns) hold any one: a flag, then one bit a line if some hold none. */
static void lines(coder *c, int encode, uint8_t *live, int64_t n) {
  cell any = FRESH, after[2] = {FRESH, FRESH};
  mixer m[2];
  even(m, 2);
  int some = 0;
  for (int64_t i = 0; encode && i < n; i++) some |= !live[i];
  cell *one[1] = {&any};
  some = code(c, encode, m, one, 1, some);
  for (int64_t i = 0; i < n; i++) {
    if (!some) {
      live[i] = 1;
    } else {
      one[0] = &after[i ? live[i - 1] : 1];
      live[i] = (uint8_t)code(c, encode, m + 1, one, 1, encode ? live[i] : 0);
    }
  }
}

/* A counter's probability on a scale of 16. */
static int grade(cell k) { return ((stretch_table[k.chance >> 10] + 2048) >> 8) & 15; }

static inline int64_t mask_code(int encode, uint8_t *mask, int64_t rows, int64_t cols,
                                int64_t period, uint8_t *bytes, int64_t size) {
  enum { NEAR = 64, FAR = 64, CROSS = 256, SETS = 3 };
  int64_t pad = period + 2;
  cell *column = malloc(sizeof(cell) * (size_t)(cols + 1));
  uint8_t *live = malloc((size_t)(rows + cols + 1));
  uint8_t *above = calloc((size_t)(3 * (cols + 2 * pad)), 1);
  if (!column || !live || !above) {
    free(column), free(live), free(above);
    return NO_MEMORY;
  }
  uint8_t *live_column = live + rows;
  coder c = start(encode, bytes, size);
  if (encode) {
    memset(live, 0, (size_t)(rows + cols));
    for (int64_t r = 0; r < rows; r++)
      for (int64_t k = 0; k < cols; k++)
        if (mask[r * cols + k]) live[r] = live_column[k] = 1;
  }
  lines(&c, encode, live, rows);
  lines(&c, encode, live_column, cols);
  coder hot = c; /* never leaves the loop, so that it stays in registers */

  cell near[NEAR], far[FAR], cross[CROSS];
  mixer m[SETS];
  fresh(column, cols);
  fresh(near, NEAR);
  fresh(far, FAR);
  fresh(cross, CROSS);
  even(m, SETS);
  for (int64_t r = 0; r < rows; r++) {
    uint8_t *row = mask + r * cols;
    uint8_t *a = above + pad + (r % 3) * (cols + 2 * pad);
    uint8_t *b = above + pad + ((r + 2) % 3) * (cols + 2 * pad);
    uint8_t *d = above + pad + ((r + 1) % 3) * (cols + 2 * pad);
    memset(a, 0, (size_t)cols);
    if (!live[r]) {
      if (!encode) memset(row, 0, (size_t)cols);
      continue;
    }
    cell here = FRESH;
    int w = 0, ww = 0, n = b[0];
    for (int64_t k = 0; k < cols; k++) {
      int bit = 0, ne = b[k + 1];
      if (live_column[k]) {
        int far_w = a[k - period];
        int near_key = w | ww << 1 | n << 2 | d[k] << 3 | b[k - 1] << 4 | ne << 5;
        int far_key = w | far_w << 1 | a[k - period + 1] << 2 | a[k - period - 1] << 3 | n << 4 |
                      ne << 5;
        cell *cells[INPUTS] = {&near[near_key], &column[k], &here, &far[far_key],
                               &cross[grade(column[k]) | grade(here) << 4]};
        bit = code(&hot, encode, m + w + n, cells, 5, encode ? row[k] : 0);
      }
      a[k] = (uint8_t)bit;
      if (!encode) row[k] = (uint8_t)bit;
      ww = w, w = bit, n = ne;
    }
  }
  free(column), free(live), free(above);
  c = hot;
  return encode ? finish(&c) : 0;
}

EXPORT int64_t mask_encode(uint8_t *mask, int64_t rows, int64_t cols, int64_t period,
                           uint8_t *bytes, int64_t size) {
  return mask_code(1, mask, rows, cols, period, bytes, size);
}

EXPORT int64_t mask_decode(uint8_t *mask, int64_t rows, int64_t cols, int64_t period,
                           uint8_t *bytes, int64_t size) {
  return mask_code(0, mask, rows, cols, period, bytes, size);
}

/* ---- values: whole numbers, each in a column ------------------------------------------------- */

static int bits_of(uint32_t x) {
  int n = 0;
  for (; x; x >>= 1) n++;
  return n;
}

static inline int64_t values_code(int encode, int32_t *values, const int32_t *column, int64_t n,
                                  int64_t cols, uint8_t *bytes, int64_t size) {
  enum { CLASSES = 16, ZERO = 0, SIGN = 1, LENGTH = 2, LOW = 34, SHORT = 63, LONG = 192 };
  enum { SIDE = 512, NODES = 1024, SETS = 43 };
  size_t cells = (size_t)NODES * (1 + CLASSES + CLASSES);
  cell *table = malloc(sizeof(cell) * cells);
  uint8_t *last = calloc((size_t)cols + 1, 1);
  if (!table || !last) {
    free(table), free(last);
    return NO_MEMORY;
  }
  coder c = start(encode, bytes, size);
  fresh(table, (int64_t)cells);
  mixer m[SETS];
  even(m, SETS);
  int left = 0;
  for (int64_t i = 0; i < n; i++) {
    cell *plain = table;
    cell *after = table + NODES * (1 + left);
    cell *below = table + NODES * (1 + CLASSES + last[column[i]]);
#define CODE(node, set, bit) \
  code(&c, encode, m + (set), (cell *const[3]){plain + (node), after + (node), below + (node)}, 3, \
       bit)
    int32_t v = encode ? values[i] : 0;
    int32_t value = 0;
    int kind = 0;
    if (CODE(ZERO, ZERO, v != 0)) {
      int negative = CODE(SIGN, SIGN, v < 0);
      uint32_t magnitude = encode ? (uint32_t)(v < 0 ? -(int64_t)v : v) : 0;
      int side = negative ? SIDE : 0;
      int length = 1, want = bits_of(magnitude);
      while (length < 31 && CODE(side + LENGTH + length, LENGTH + length, want > length)) length++;
      uint32_t found = 1;
      for (int d = length - 2; d >= 0; d--) {
        int node = found >= 128 ? LOW + d
                   : length > 7 ? LONG + (int)found
                                : SHORT + (1 << (length - 1)) + (int)found;
        int set = found >= 128 ? 42 : 34 + bits_of(found);
        found = found << 1 | (uint32_t)CODE(side + node, set, (int)(magnitude >> d) & 1);
      }
      value = (int32_t)(negative ? -(int64_t)found : found);
      kind = 2 * (length > 7 ? 7 : length) + negative;
    }
#undef CODE
    left = last[column[i]] = (uint8_t)kind;
    if (!encode) values[i] = value;
  }
  free(table), free(last);
  return encode ? finish(&c) : 0;
}

EXPORT int64_t values_encode(int32_t *values, const int32_t *column, int64_t n, int64_t cols,
                             uint8_t *bytes, int64_t size) {
  return values_code(1, values, column, n, cols, bytes, size);
}

EXPORT int64_t values_decode(int32_t *values, const int32_t *column, int64_t n, int64_t cols,
                             uint8_t *bytes, int64_t size) {
  return values_code(0, values, column, n, cols, bytes, size);
}

/* ---- bytes: rows of `width`, one column a place ---------------------------------------------- */

enum { HASHED = 1 << 16, BYTE_INPUTS = 4 };

typedef struct {
  cell plain[8 * 256], after[HASHED], above[HASHED], both[HASHED];
  mixer mix[8];
} byte_model;

static uint32_t hashed(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t h = (a * 0x9E3779B1u) ^ (b * 0x85EBCA6Bu) ^ (c * 0xC2B2AE35u);
  return (h ^ h >> 15) & (HASHED - 1);
}

static inline void bytes_pass(int encode, coder *c, byte_model *b, uint8_t *data, int64_t n,
                              int64_t width) {
  for (int64_t i = 0; i < n; i++) {
    uint32_t place = (uint32_t)(i % width);
    uint32_t one = i > 0 ? data[i - 1] : 0, two = i > 1 ? data[i - 2] : 0;
    uint32_t three = i > 2 ? data[i - 3] : 0, up = i >= width ? data[i - width] : 0;
    uint32_t node = 1;
    if (width == 1) up = one << 16 | two << 8 | three;
    for (int d = 7; d >= 0; d--) {
      uint32_t key = place << 8 | node;
      cell *cells[BYTE_INPUTS] = {
          &b->plain[key],
          &b->after[hashed(key, one, 1)],
          &b->above[hashed(key, up, 2)],
          &b->both[hashed(key, one, two + 3)],
      };
      int bit = code(c, encode, &b->mix[place], cells, BYTE_INPUTS, encode ? data[i] >> d & 1 : 0);
      node = node << 1 | (uint32_t)bit;
    }
    if (!encode) data[i] = (uint8_t)node;
  }
}

static inline int64_t bytes_code(int encode, uint8_t *data, int64_t n, int64_t width,
                                 uint8_t *primer, int64_t primed, uint8_t *bytes, int64_t size) {
  byte_model *b = malloc(sizeof *b);
  if (!b) return NO_MEMORY;
  fresh(b->plain, 8 * 256);
  fresh(b->after, HASHED);
  fresh(b->above, HASHED);
  fresh(b->both, HASHED);
  even(b->mix, 8);
  coder dry = start(1, bytes, 0);
  bytes_pass(1, &dry, b, primer, primed, width);
  coder c = start(encode, bytes, size);
  bytes_pass(encode, &c, b, data, n, width);
  free(b);
  return encode ? finish(&c) : 0;
}

EXPORT int64_t bytes_encode(uint8_t *data, int64_t n, int64_t width, uint8_t *primer,
                            int64_t primed, uint8_t *bytes, int64_t size) {
  return bytes_code(1, data, n, width, primer, primed, bytes, size);
}

EXPORT int64_t bytes_decode(uint8_t *data, int64_t n, int64_t width, uint8_t *primer,
                            int64_t primed, uint8_t *bytes, int64_t size) {
  return bytes_code(0, data, n, width, primer, primed, bytes, size);
}

/* ---- canonical Huffman codes ----------------------------------------------------------------- */

/* Decodes n symbols of codes up to 24 bits. `count[l]` codes have length l; `symbols` lists them by
 * length, then by value. Returns how many bits were read, or TOO_LONG where no code fits. */
EXPORT int64_t prefix_decode(int32_t *out, int64_t n, const int64_t *count, const int32_t *symbols,
                             const uint8_t *in, int64_t size) {
  enum { LONGEST = 24, FAST = 11 };
  int32_t quick[1 << FAST]; /* symbol's place << 5 | length, or 0 */
  uint64_t first = 0;
  int64_t place = 0, total = 0;
  uint64_t ends[LONGEST + 1]; /* left-aligned to 24 bits: the first code longer than l */
  int64_t bases[LONGEST + 1];
  memset(quick, 0, sizeof quick);
  for (int l = 1; l <= LONGEST; l++) {
    int64_t starts = (int64_t)(first >> (LONGEST - l));
    bases[l] = place - starts;
    for (int64_t j = 0; j < count[l] && l <= FAST; j++) {
      int64_t from = (starts + j) << (FAST - l);
      for (int64_t k = 0; k < 1 << (FAST - l) && from + k < 1 << FAST; k++)
        quick[from + k] = (int32_t)((place + j) << 5 | l);
    }
    first += (uint64_t)count[l] << (LONGEST - l);
    ends[l] = first;
    place += count[l];
  }
  uint64_t window = 0;
  int have = 0;
  int64_t at = 0;
  for (int64_t i = 0; i < n; i++) {
    while (have <= 56) {
      window |= (uint64_t)(at < size ? in[at] : 0) << (56 - have);
      at++;
      have += 8;
    }
    int32_t hit = quick[window >> (64 - FAST)];
    int l = hit & 31;
    if (hit) {
      out[i] = symbols[hit >> 5];
    } else {
      uint64_t code = window >> (64 - LONGEST);
      for (l = 1; l <= LONGEST && code >= ends[l]; l++) continue;
      if (l > LONGEST) return TOO_LONG;
      out[i] = symbols[bases[l] + (int64_t)(code >> (LONGEST - l))];
    }
    window <<= l;
    have -= l;
    total += l;
  }
  return total;
}
