/* Products of activations and weights, and what is done with each sum before it is stored. */

#ifndef PRODUCT_H
#define PRODUCT_H

#include "team.h"
#include "tile.h"

/* Up to 264 lines of a panel (17 KiB) stay in L1 while we loop over rows; this many rows by as many words stay
 * in L2 while we loop over panels. */
#define BLOCK_WORDS 264
#define BLOCK_ROWS 96
#define GROUP_PANELS 4
#define SUMS_BYTES (GROUP_PANELS * BLOCK_ROWS * LINE * 4)
#define REPEATED 16 /* inputs that stand again behind all others, with 8-bit weights; as in layout.py */

/* A linear layer in an export: y = rows weights^T + bias. With 8-bit weights, y = (s (words . weights)
 * + low sums) scales + bias, where a token's numbers are s words + low. */
typedef struct {
    const char *lines;       /* (outputs / 16, words, 16) words */
    const float *bias;       /* (outputs) */
    const float *scales;     /* (outputs), 8-bit only, like the next three */
    const float *sums;       /* (outputs), of the weights */
    const float *smooth;     /* (inputs), multiplied with activations before they are rounded */
    const int32_t *repeated; /* (REPEATED), which inputs stand again; `lines` has words for them too */
    int32_t inputs, outputs;
} Linear;

/* Activations as words. Rows are padded by 64 bytes: a power-of-two stride would map them to the same L1 sets.
 * With 16 bits, a token has two rows: its upper and its lower bytes. */
typedef struct {
    char *words;
    size_t stride; /* bytes */
    float *scales; /* s and low of each token, 8-bit only */
} Rows;

/* Where sums go: to[token * row + panel * panel_stride + column], in numbers. */
typedef struct {
    float *to;
    size_t row, panel;
    const float *residual; /* added to the sums, laid out like `to`; or NULL */
    int gelu;
    Rows *words; /* instead of `to`: bf16, for the next product */
} Out;

typedef struct {
    enum kind kind;
    int planes; /* rows of a token: 2 if activations have 16 bits, else 1 */
} Numbers;

static inline int word_bytes(enum kind kind) { return kind == F32 ? 4 : kind == BF16 ? 2 : 1; }

static inline int words_of(enum kind kind, const Linear *linear) {
    return (linear->inputs + (kind == S8 ? REPEATED : 0)) * word_bytes(kind) / 4;
}

INLINE void write_sum(Numbers numbers, const Linear *linear, const Rows *rows, const Out *out, int token,
                      int panel, const char *sums, const char *lower) {
    for (int v = 0; v < VECTORS; v++) {
        int column = panel * LINE + v * LANES;
        floats sum = *(const floats *)(sums + v * sizeof(floats));
        if (numbers.kind == S8) {
            sum = __builtin_convertvector((ints)sum, floats);
            if (numbers.planes == 2)
                sum = fma_floats(sum, all(256.0f),
                                 __builtin_convertvector(*(const ints *)(lower + v * sizeof(ints)), floats));
            const float *own = rows->scales + 2 * token;
            sum = fma_floats(sum, all(own[0]), load(linear->sums + column) * own[1]) *
                  load(linear->scales + column);
        }
        sum = sum + load(linear->bias + column);
        if (out->gelu) sum = gelu(sum);
        if (out->words) {
            float kept[LANES];
            store(kept, sum);
            store_bf16((uint16_t *)(out->words->words + token * out->words->stride) + column, kept,
                       LANES); /* LANES: 16 */
            continue;
        }
        size_t at = token * out->row + panel * out->panel + v * LANES;
        if (out->residual) sum = sum + load(out->residual + at);
        store(out->to + at, sum);
    }
}

/* sums (panels, rows, 16) += rows x panels, in tiles; once inlined, `kind` is a constant. */
INLINE void tiles(enum kind kind, const char *a, size_t a_stride, int rows, const char *b, size_t b_stride,
                  int panels, int words, char *sums, size_t row_stride, size_t panel_stride, int fresh) {
    for (int p = 0; p < panels; p += TILE_PANELS) {
        int some = panels - p < TILE_PANELS ? panels - p : TILE_PANELS;
        const char *lines = b + p * b_stride;
        for (int r = 0; r < rows;) {
            int left = rows - r, done = left < TILE_ROWS(kind) ? left : TILE_ROWS(kind);
            const char *from = a + r * a_stride;
            char *to = sums + r * row_stride + p * panel_stride;
#define TILE(number)                                                                                         \
    case number:                                                                                             \
        if (number > TILE_ROWS(kind)) __builtin_unreachable();                                               \
        if (some == 1)                                                                                       \
            tile_of(kind, number, 1, from, a_stride, lines, b_stride, words, to, row_stride, panel_stride,   \
                    fresh);                                                                                  \
        else                                                                                                 \
            tile_of(kind, number, TILE_PANELS, from, a_stride, lines, b_stride, words, to, row_stride,       \
                    panel_stride, fresh);                                                                    \
        break;
            /* clang-format off */
            switch (done) {
                TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6)
#ifdef __AVX512F__
                TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12)
#endif
            }
            /* clang-format on */
#undef TILE
            r += done;
        }
    }
}

/* One function for each kind, so that each is compiled once. */
static __attribute__((noinline)) void tiles_f32(const char *a, size_t as, int rows, const char *b, size_t bs,
                                                int panels, int words, char *s, size_t rs, size_t ps,
                                                int fresh) {
    tiles(F32, a, as, rows, b, bs, panels, words, s, rs, ps, fresh);
}
#ifdef __AVX512BF16__
static __attribute__((noinline)) void tiles_bf16(const char *a, size_t as, int rows, const char *b, size_t bs,
                                                 int panels, int words, char *s, size_t rs, size_t ps,
                                                 int fresh) {
    tiles(BF16, a, as, rows, b, bs, panels, words, s, rs, ps, fresh);
}
#else
#define tiles_bf16 tiles_f32
#endif
static
    __attribute__((noinline)) void tiles_s8(const char *a, size_t as, int rows, const char *b, size_t bs,
                                            int panels, int words, char *s, size_t rs, size_t ps, int fresh) {
    tiles(S8, a, as, rows, b, bs, panels, words, s, rs, ps, fresh);
}
typedef void (*Tiles)(const char *, size_t, int, const char *, size_t, int, int, char *, size_t, size_t, int);
static inline Tiles tiles_for(enum kind kind) {
    return kind == F32 ? tiles_f32 : kind == BF16 ? tiles_bf16 : tiles_s8;
}

/* A phase: out = rows weights^T + bias for all tokens. A task is some rows by some panels. */
static void product(Member *me, Numbers numbers, const Linear *linear, const Rows *rows, int tokens,
                    const Out *out) {
    int words = words_of(numbers.kind, linear), panels = linear->outputs / LINE;
    int block = BLOCK_ROWS / numbers.planes, blocks = (tokens + block - 1) / block;
    int group = GROUP_PANELS;
    while (group > TILE_PANELS && blocks * (panels / group) < 4 * me->team->threads) group /= 2;
    int tasks = blocks * ((panels + group - 1) / group);
    /* Steps of equal size, of whole pairs of words. With few rows, memory is the bottleneck: read each panel in
     * one pass. */
    int steps = tokens * numbers.planes > 2 * MOST_ROWS ? (words + BLOCK_WORDS - 1) / BLOCK_WORDS : 1;
    int step = (words + 2 * steps - 1) / (2 * steps) * 2;
    size_t panel_bytes = (size_t)words * 64;
    Tiles multiply = tiles_for(numbers.kind);
    char *sums = me->scratch;
    size_t panel_sums = BLOCK_ROWS * LINE * 4;
    for (int task; (task = take(me)) < tasks;) {
        int first = task % blocks * block, panel = task / blocks * group;
        int count = tokens - first < block ? tokens - first : block;
        int some = panels - panel < group ? panels - panel : group;
        int high = count * numbers.planes;
        const char *from = rows->words + (size_t)first * numbers.planes * rows->stride;
        for (int w = 0; w < words; w += step)
            multiply(from + w * 4, rows->stride, high, linear->lines + panel * panel_bytes + (size_t)w * 64,
                     panel_bytes, some, words - w < step ? words - w : step, sums, LINE * 4, panel_sums,
                     w == 0);
        for (int r = 0; r < count; r++)
            for (int p = 0; p < some; p++) {
                const char *sum = sums + p * panel_sums + (size_t)r * numbers.planes * LINE * 4;
                write_sum(numbers, linear, rows, out, first + r, panel + p, sum, sum + LINE * 4);
            }
    }
    meet(me);
}
#endif
