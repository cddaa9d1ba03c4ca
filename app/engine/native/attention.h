/* softmax(q k^T / sqrt(width of a head)) v, for each text and head.
 *
 * Scores are never written as a whole: some queries go over the keys block by block and keep the largest
 * score, the sum and the weighted values so far (Dao et al. 2022, FlashAttention, algorithm 1).
 */

#ifndef ATTENTION_H
#define ATTENTION_H

#include "rows.h"

#define QUERIES 24
#define KEYS 128 /* of a block; a multiple of 16 */

typedef struct {
    enum kind kind;  /* F32, or BF16 where the processor multiplies it */
    int tokens, texts, heads, size; /* size: numbers in a head */
    const int32_t *starts; /* (texts + 1), the first token of each text */
    int32_t *places; /* (texts + 1), of each text's first key, in lines of 16 keys */
    int32_t *tasks;  /* (blocks, 2), text and first query */
    int blocks;
    const float *projected; /* (3 width / 16, tokens, 16): queries, keys, values of every head */
    char *keys;   /* (heads, places, size) words of 16 keys */
    char *values; /* BF16 only: (heads, size / 16, places * 8) lines of two tokens */
} Attention;

#define HEAD_PANELS(a) ((a)->size / LINE)
/* Of each thread: scores, words of queries and of weights, sums, what is kept of each query. */
#define ATTENTION_BYTES(size) ((size_t)QUERIES * ((KEYS + 16) * 8 + ((size) + 16) * 8 + 64))

static const float *panel_of(const Attention *a, int part, int head, int panel) {
    return a->projected + (size_t)((part * a->heads + head) * HEAD_PANELS(a) + panel) * a->tokens * LINE;
}

/* Keys, and values in bf16, as lines: what a product wants of its right side. A phase. */
static void arrange(Member *me, const Attention *a) {
    int wide = a->kind == BF16 ? 2 : 1, all_places = a->places[a->texts];
    for (int task; (task = take(me)) < a->texts * a->heads;) {
        int text = task / a->heads, head = task % a->heads;
        int start = a->starts[text], length = a->starts[text + 1] - start;
        size_t place = (size_t)head * all_places + a->places[text];
        for (int first = 0; first < length; first += LINE, place++) {
            int some = length - first < LINE ? length - first : LINE;
            char *lines = a->keys + place * (a->size / wide) * 64;
            memset(lines, 0, (size_t)a->size / wide * 64);
            for (int p = 0; p < HEAD_PANELS(a); p++) {
                const float *from = panel_of(a, 1, head, p) + (size_t)(start + first) * LINE;
                for (int key = 0; key < some; key++, from += LINE) {
                    if (wide == 1) {
                        float *to = (float *)lines + (size_t)p * LINE * LINE + key;
                        for (int c = 0; c < LINE; c++) to[c * LINE] = from[c];
                    } else {
                        uint16_t half[LINE], *to = (uint16_t *)lines + (size_t)p * LINE * LINE + 2 * key;
                        store_bf16(half, from, LINE);
                        for (int c = 0; c < LINE; c++) to[c / 2 * 32 + c % 2] = half[c];
                    }
                }
            }
        }
        if (wide == 1) continue;
        for (int p = 0; p < HEAD_PANELS(a); p++) {
            const float *from = panel_of(a, 2, head, p) + (size_t)start * LINE;
            uint16_t *to = (uint16_t *)(a->values + (((size_t)head * HEAD_PANELS(a) + p) * all_places +
                                                      a->places[text]) * 8 * 64);
            for (int key = 0; key < (length + 1) / 2 * 2; key++) {
                uint16_t half[LINE] = {0};
                if (key < length) store_bf16(half, from + key * LINE, LINE);
                for (int c = 0; c < LINE; c++) to[key / 2 * 32 + 2 * c + key % 2] = half[c];
            }
        }
    }
    meet(me);
}

/* Row of scores -> e^(score - largest), the new largest; returns their sum. */
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

/* Attended states of every token, to[token * stride + column]. A phase. */
static void attend(Member *me, const Attention *a, float *to, size_t stride) {
    int size = a->size, panels = HEAD_PANELS(a), wide = a->kind == BF16 ? 2 : 1;
    size_t score_row = (KEYS + 16) * 4, query_row = (size_t)(size + 16) * 4;
    char *scores = me->scratch, *weights = scores + QUERIES * score_row;
    char *queries = weights + QUERIES * score_row, *sums = queries + QUERIES * query_row;
    float *kept = (float *)(sums + QUERIES * query_row); /* largest, total of each query */
    Tiles multiply = tiles_for(a->kind);
    float scale = 1.0f / sqrtf((float)size);
    for (int task; (task = take(me)) < a->blocks * a->heads;) {
        int head = task % a->heads, text = a->tasks[task / a->heads * 2], first = a->tasks[task / a->heads * 2 + 1];
        int start = a->starts[text], length = a->starts[text + 1] - start;
        int count = length - first < QUERIES ? length - first : QUERIES;
        for (int q = 0; q < count; q++) {
            kept[2 * q] = -INFINITY;
            kept[2 * q + 1] = 0;
            for (int p = 0; p < panels; p++) {
                const float *from = panel_of(a, 0, head, p) + (size_t)(start + first + q) * LINE;
                float scaled[LINE];
                for (int c = 0; c < LINE; c++) scaled[c] = from[c] * scale;
                char *row = queries + q * query_row + (size_t)p * LINE * 4 / wide;
                if (wide == 1) memcpy(row, scaled, sizeof scaled);
                else store_bf16((uint16_t *)row, scaled, LINE);
            }
        }
        for (int key = 0; key < length; key += KEYS) {
            int keys = length - key < KEYS ? length - key : KEYS, lines = (keys + LINE - 1) / LINE;
            size_t place = (size_t)head * a->places[a->texts] + a->places[text] + key / LINE;
            size_t panel_bytes = (size_t)size / wide * 64;
            multiply(queries, query_row, count, a->keys + place * panel_bytes, panel_bytes, lines, size / wide,
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
                if (wide == 2) store_bf16((uint16_t *)(weights + q * score_row), row, lines * LINE);
            }
            if (wide == 1)
                multiply(scores, score_row, count, (const char *)(panel_of(a, 2, head, 0) + (size_t)(start + key) * LINE),
                         (size_t)a->tokens * 64, panels, keys, sums, query_row, LINE * 4, key == 0);
            else
                multiply(weights, score_row, count,
                         a->values + ((size_t)head * panels * a->places[a->texts] + a->places[text]) * 8 * 64 + (size_t)key * 32,
                         (size_t)a->places[a->texts] * 8 * 64, panels, (keys + 1) / 2, sums, query_row, LINE * 4, key == 0);
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
