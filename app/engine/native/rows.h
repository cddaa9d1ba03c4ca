/* Work on whole rows: layer norms, and making words of activations. */

#ifndef ROWS_H
#define ROWS_H

#include "product.h"

/* Make words of one token's numbers, for the next product.
 *
 * For 8-bit words, each token's own [min, max] is mapped to 0..255, or to 0..65535 for 16 bits, so other
 * texts in the batch cannot change it. The repeated inputs come last, in the padding of the row. */
static void make_words(Numbers numbers, const Linear *next, const float *from, int count, Rows *to,
                       int token) {
    char *words = to->words + (size_t)token * numbers.planes * to->stride;
    if (numbers.kind == F32) {
        memcpy(words, from, (size_t)count * 4);
        return;
    }
    if (numbers.kind == BF16) {
        store_bf16((uint16_t *)words, from, count);
        return;
    }
    floats low = load(from) * load(next->smooth), high = low, bad = low * 0.0f;
    for (int i = LANES; i < count; i += LANES) {
        floats x = load(from + i) * load(next->smooth + i);
        bad += x * 0.0f; /* NaN if x is not finite: bytes could not show it */
        low = smaller(x, low);
        high = larger(x, high);
    }
    float lowest = -largest_of(-low), range = largest_of(high) - lowest;
    int levels = numbers.planes == 2 ? 65535 : 255;
    range = range > 1e-8f ? range : 1e-8f;
    for (int lane = 0; lane < LANES; lane++) lowest += bad[lane];
    to->scales[2 * token] = range / levels;
    to->scales[2 * token + 1] = lowest;
    floats times = all(levels / range), from_zero = all(lowest), top = all((float)levels);
    for (int i = 0; i < count; i += LANES) {
        floats x = (load(from + i) * load(next->smooth + i) - from_zero) * times;
        ints whole = nearest(smaller(larger(x, all(0.0f)), top));
        if (numbers.planes == 2) {
            store_bytes(words + i, whole >> 8);
            store_bytes(words + to->stride + i, whole & 255);
        } else {
            store_bytes(words + i, whole);
        }
    }
    for (int plane = 0; plane < numbers.planes; plane++, words += to->stride)
        for (int i = 0; i < REPEATED; i++) words[count + i] = words[next->repeated[i]];
}

/* (x - mean) / sqrt(variance + epsilon) * gain + bias, in place (Ba et al. 2016, eq. 4). */
static void norm(float *x, int count, const float *gain, const float *bias, float epsilon) {
    line sum = {}, squares = {};
    for (int i = 0; i < count; i += LINE)
        for (int v = 0; v < VECTORS; v++) sum.part[v] += load(x + i + v * LANES);
    floats mean = all(sum_of(sum) / count);
    for (int i = 0; i < count; i += LINE)
        for (int v = 0; v < VECTORS; v++) {
            floats off = load(x + i + v * LANES) - mean;
            squares.part[v] = fma_floats(off, off, squares.part[v]);
        }
    floats by = all(1.0f / sqrtf(sum_of(squares) / count + epsilon));
    for (int i = 0; i < count; i += LANES)
        store(x + i, fma_floats((load(x + i) - mean) * by, load(gain + i), load(bias + i)));
}
#endif
