/* softmax(q k^T / sqrt(width of a head)) v, for each text and head.
 *
 * The matrix of scores is never stored as a whole: a few queries go over the keys block by block, and keep
 * the largest score, the sum and the weighted values so far (Dao et al. 2022, FlashAttention, algorithm 1).
 */

#ifndef ATTENTION_H
#define ATTENTION_H

#include "rows.h"

#define QUERIES 24
#define KEYS 128 /* in a block; a multiple of 16 */

/* VDPBF16PS adds the product of a pair's second elements first, then that of the first, and rounds after
 * each. Without it, we round float32 to bf16 and swap the elements of each pair. So sums are added in the same
 * order and are equal to the last bit. */
typedef struct {
    enum kind kind;                 /* F32, or BF16 if the processor supports it */
    int imitates;                   /* whether F32 stands in for BF16 */
    int tokens, texts, heads, size; /* size: numbers in a head */
    const int32_t *starts;          /* (texts + 1), the first token of each text */
    int32_t *places;                /* (texts + 1), each text's first line of 16 keys */
    int32_t *tasks;                 /* (blocks, 2), text and first query */
    int blocks;
    const float *projected; /* (3 width / 16, tokens, 16): queries, keys, values of every head */
    char *keys;             /* (heads, places, size) words of 16 keys */
    char *values; /* NULL in fp32, else (heads, size / 16) panels, a line for each token or each two (BF16) */
} Attention;

#define HEAD_PANELS(a) ((a)->size / LINE)
#define WIDE(a) ((a)->kind == BF16 ? 2 : 1) /* numbers in a word */
/* For each thread: scores, words of queries and of weights, sums, what is kept of each query. */
#define ATTENTION_BYTES(size) ((size_t)QUERIES * ((KEYS + 16) * 8 + ((size) + 16) * 8 + 64))

static const float *panel_of(const Attention *a, int part, int head, int panel) {
    return a->projected + (size_t)((part * a->heads + head) * HEAD_PANELS(a) + panel) * a->tokens * LINE;
}

/* Convert 16 consecutive numbers for a product. */
INLINE void put(const Attention *a, char *row, const float *from, float scale) {
    float scaled[LINE], *to = a->kind == BF16 ? scaled : (float *)row;
    for (int i = 0; i < LINE; i += LANES) {
        floats x = load(from + i) * scale;
        store(to + i, a->imitates ? pairs_turned(rounded(x)) : x);
    }
    if (a->kind == BF16) store_bf16((uint16_t *)row, scaled, LINE);
}

/* A phase that repacks keys (and values, unless fp32 reads them in place) as right operands of products. */
static void arrange(Member *me, const Attention *a) {
    int wide = WIDE(a), places = a->places[a->texts];
    for (int task; (task = take(me)) < a->texts * a->heads;) {
        int text = task / a->heads, head = task % a->heads;
        int start = a->starts[text], length = a->starts[text + 1] - start;
        size_t key_bytes = (size_t)a->size / wide * 64; /* of 16 keys */
        for (int first = 0; first < length; first += LINE) {
            int some = length - first < LINE ? length - first : LINE;
            char *lines = a->keys + ((size_t)head * places + a->places[text] + first / LINE) * key_bytes;
            memset(lines, 0, key_bytes);
            for (int p = 0; p < HEAD_PANELS(a); p++, lines += LINE / wide * 64)
                for (int key = 0; key < some; key++) {
                    char row[LINE * 4];
                    put(a, row, panel_of(a, 1, head, p) + (size_t)(start + first + key) * LINE, 1);
                    for (int c = 0; c < LINE / wide; c++) memcpy(lines + c * 64 + key * 4, row + c * 4, 4);
                }
        }
        if (!a->values) continue;
        for (int p = 0; p < HEAD_PANELS(a); p++) {
            const float *from = panel_of(a, 2, head, p) + (size_t)start * LINE;
            char *lines = a->values +
                          (((size_t)head * HEAD_PANELS(a) + p) * places + a->places[text]) * LINE / wide * 64;
            for (int key = 0; key < length + length % 2; key++) {
                float nothing[LINE] = {0}, row[LINE];
                const float *value = key < length ? from + (size_t)key * LINE : nothing;
                if (wide == 1) {
                    for (int i = 0; i < LINE; i += LANES)
                        store((float *)(lines + (key ^ a->imitates) * 64) + i, rounded(load(value + i)));
                    continue;
                }
                store_bf16((uint16_t *)row, value, LINE);
                for (int c = 0; c < LINE; c++)
                    memcpy(lines + key / 2 * 64 + c * 4 + key % 2 * 2, (uint16_t *)row + c, 2);
            }
        }
    }
    meet(me);
}

/* Update `largest`, and replace a row of scores by e^(score - largest); returns their sum. */
INLINE float weigh(float *scores, int keys, float *largest, float *correction) {
    int padded = (keys + LINE - 1) / LINE * LINE;
    for (int key = keys; key < padded; key++) scores[key] = -INFINITY;
    floats most = all(*largest);
    line sum = {};
    for (int key = 0; key < padded; key += LANES) most = larger(load(scores + key), most);
    float now = largest_of(most);
    *correction = exponential(all(*largest - now))[0];
    *largest = now;
    floats level = all(now);
    for (int key = 0; key < padded; key += LINE)
        for (int v = 0; v < VECTORS; v++) {
            float *at = scores + key + v * LANES;
            floats weight = exponential(load(at) - level);
            sum.part[v] += weight;
            store(at, weight);
        }
    return sum_of(sum);
}

/* A phase that writes the attended state of every token to to[token * stride + column]. */
static void attend(Member *me, const Attention *a, float *to, size_t stride) {
    int size = a->size, panels = HEAD_PANELS(a), wide = WIDE(a), places = a->places[a->texts];
    size_t score_row = (KEYS + 16) * 4, query_row = (size_t)(size + 16) * 4;
    char *scores = me->scratch, *weights = scores + QUERIES * score_row;
    char *queries = weights + QUERIES * score_row, *sums = queries + QUERIES * query_row;
    float *kept = (float *)(sums + QUERIES * query_row); /* each query's largest score and sum */
    Tiles multiply = tiles_for(a->kind);
    float scale = 1.0f / sqrtf((float)size);
    for (int task; (task = take(me)) < a->blocks * a->heads;) {
        int head = task % a->heads, text = a->tasks[task / a->heads * 2],
            first = a->tasks[task / a->heads * 2 + 1];
        int start = a->starts[text], length = a->starts[text + 1] - start;
        int count = length - first < QUERIES ? length - first : QUERIES;
        for (int q = 0; q < count; q++) {
            kept[2 * q] = -INFINITY;
            kept[2 * q + 1] = 0;
            for (int p = 0; p < panels; p++)
                put(a, queries + q * query_row + (size_t)p * LINE * 4 / wide,
                    panel_of(a, 0, head, p) + (size_t)(start + first + q) * LINE, scale);
        }
        for (int key = 0; key < length; key += KEYS) {
            int keys = length - key < KEYS ? length - key : KEYS, lines = (keys + LINE - 1) / LINE;
            size_t place = (size_t)head * places + a->places[text] + key / LINE;
            size_t key_bytes = (size_t)size / wide * 64;
            multiply(queries, query_row, count, a->keys + place * key_bytes, key_bytes, lines, size / wide,
                     scores, score_row, LINE * 4, 1);
            for (int q = 0; q < count; q++) {
                float *row = (float *)(scores + q * score_row), correction;
                float sum = weigh(row, keys, &kept[2 * q], &correction);
                kept[2 * q + 1] = kept[2 * q + 1] * correction + sum;
                if (key)
                    for (int c = 0; c < size; c += LANES) {
                        float *so_far = (float *)(sums + q * query_row) + c;
                        store(so_far, load(so_far) * correction);
                    }
                if (a->kind == BF16)
                    store_bf16((uint16_t *)(weights + q * score_row), row, lines * LINE);
                else if (a->imitates)
                    for (int l = 0; l < lines; l++)
                        put(a, weights + q * score_row + l * LINE * 4, row + l * LINE, 1);
            }
            if (a->values)
                multiply(weights, score_row, count,
                         a->values + ((size_t)head * panels * places + a->places[text]) * LINE / wide * 64 +
                             (size_t)key / wide * 64,
                         (size_t)places * LINE / wide * 64, panels, (keys + keys % 2) / wide, sums, query_row,
                         LINE * 4, key == 0);
            else
                multiply(scores, score_row, count,
                         (const char *)(panel_of(a, 2, head, 0) + (size_t)(start + key) * LINE),
                         (size_t)a->tokens * 64, panels, keys, sums, query_row, LINE * 4, key == 0);
        }
        for (int q = 0; q < count; q++) {
            float share = 1.0f / kept[2 * q + 1];
            const float *from = (const float *)(sums + q * query_row);
            float *row = to + (size_t)(start + first + q) * stride + (size_t)head * size;
            for (int c = 0; c < size; c += LANES) store(row + c, load(from + c) * share);
        }
    }
    meet(me);
}
#endif
