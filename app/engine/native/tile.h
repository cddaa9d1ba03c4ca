/* All multiplication is here: a few rows by a few panels.
 *
 * Everything is counted in words of 4 bytes: one float32, two bf16 or four 8-bit integers. A matrix of
 * weights is stored in panels of 16 outputs; each line of a panel, 64 bytes, holds one word of each output.
 * A row of activations is a row of words. So a step multiplies one word of a row, broadcast, by a line.
 */

#ifndef TILE_H
#define TILE_H

#include "vector.h"

enum kind { F32, BF16, S8 }; /* what words hold; S8: unsigned bytes in rows, signed bytes in lines */

/* Rows and panels whose sums fit into the registers together with what is being multiplied. */
#ifdef __AVX512F__
#define TILE_ROWS(kind) 12
#define TILE_PANELS 2
#else
#define TILE_ROWS(kind) ((kind) == S8 && !HAS_VNNI ? 4 : 6)
#define TILE_PANELS 1
#endif
#define MOST_ROWS 12
#define AHEAD 4096 /* prefetch distance in bytes; measured */

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#define HAS_VNNI 1
#else
#define HAS_VNNI 0
#endif

#ifdef __AVX512BF16__
#define HAS_BF16 1
#else
#define HAS_BF16 0
#endif

INLINE ints broadcast(const char *word) {
    int32_t value;
    memcpy(&value, word, 4);
    return value - (ints){};
}

/* sum + row x line, one word. */
INLINE ints step(enum kind kind, ints sum, ints row, ints line) {
    if (kind == F32) return (ints)fma_floats((floats)row, (floats)line, (floats)sum);
#ifdef __AVX512BF16__
    if (kind == BF16) return (ints)_mm512_dpbf16_ps((__m512)sum, (__m512bh)row, (__m512bh)line);
#endif
#if defined(__AVX512VNNI__)
    if (kind == S8) return (ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)row, (__m512i)line);
#elif defined(__AVXVNNI__)
    if (kind == S8) return (ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)row, (__m256i)line);
#endif
    __builtin_unreachable();
}

/* Two words at a time without VNNI: neighbouring products are added in 16 bits, and so are both words' sums.
 * Each result sums four products. The weights are chosen so that no four can overflow, see rounding.py. */
INLINE ints two_steps(ints sum, ints row, ints row2, ints line, ints line2) {
#ifdef __AVX512BW__
    __m512i first = _mm512_maddubs_epi16((__m512i)row, (__m512i)line);
    __m512i second = _mm512_maddubs_epi16((__m512i)row2, (__m512i)line2);
    __m512i both = _mm512_add_epi16(first, second);
    return sum + (ints)_mm512_madd_epi16(both, _mm512_set1_epi16(1));
#else
    __m256i first = _mm256_maddubs_epi16((__m256i)row, (__m256i)line);
    __m256i second = _mm256_maddubs_epi16((__m256i)row2, (__m256i)line2);
    __m256i both = _mm256_add_epi16(first, second);
    return sum + (ints)_mm256_madd_epi16(both, _mm256_set1_epi16(1));
#endif
}

/* sums += rows x panels over this many words; if `fresh`, sums = rows x panels. Once inlined, `rows` and
 * `panels` are constants. */
INLINE void tile_of(enum kind kind, int rows, int panels, const char *a, size_t a_stride, const char *b,
                    size_t b_stride, int words, char *sums, size_t row_stride, size_t panel_stride,
                    int fresh) {
    ints sum[MOST_ROWS][TILE_PANELS * VECTORS];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < panels * VECTORS; v++)
            sum[r][v] = fresh ? (ints){}
                              : *(const ints *)(sums + r * row_stride + v / VECTORS * panel_stride +
                                                v % VECTORS * sizeof(ints));
    if (kind == S8 && !HAS_VNNI) {
        for (int w = 0; w < words; w += 2) {
            ints line[TILE_PANELS * VECTORS], line2[TILE_PANELS * VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < panels * VECTORS; v++) {
                const char *at = b + v / VECTORS * b_stride + (size_t)w * 64 + v % VECTORS * sizeof(ints);
                line[v] = *(const ints *)at;
                line2[v] = *(const ints *)(at + 64);
                if (v % VECTORS == 0)
                    _mm_prefetch(at + AHEAD, _MM_HINT_T0), _mm_prefetch(at + AHEAD + 64, _MM_HINT_T0);
            }
#pragma GCC unroll 16
            for (int r = 0; r < rows; r++) {
                ints row = broadcast(a + r * a_stride + w * 4);
                ints row2 = broadcast(a + r * a_stride + w * 4 + 4);
#pragma GCC unroll 4
                for (int v = 0; v < panels * VECTORS; v++)
                    sum[r][v] = two_steps(sum[r][v], row, row2, line[v], line2[v]);
            }
        }
    } else {
        for (int w = 0; w < words; w++) {
            ints line[TILE_PANELS * VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < panels * VECTORS; v++) {
                const char *at = b + v / VECTORS * b_stride + (size_t)w * 64 + v % VECTORS * sizeof(ints);
                line[v] = *(const ints *)at;
                if (v % VECTORS == 0) _mm_prefetch(at + AHEAD, _MM_HINT_T0);
            }
#pragma GCC unroll 16
            for (int r = 0; r < rows; r++) {
                ints row = broadcast(a + r * a_stride + w * 4);
#pragma GCC unroll 4
                for (int v = 0; v < panels * VECTORS; v++) sum[r][v] = step(kind, sum[r][v], row, line[v]);
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < panels * VECTORS; v++)
            *(ints *)(sums + r * row_stride + v / VECTORS * panel_stride + v % VECTORS * sizeof(ints)) =
                sum[r][v];
}
#endif
