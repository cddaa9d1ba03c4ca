/* Vectors as wide as the processor's registers. A line is 64 bytes: 16 numbers, one or two vectors. */

#ifndef VECTOR_H
#define VECTOR_H

#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define LINE 16 /* numbers of 4 bytes in a line */

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
#define VECTORS (LINE / LANES) /* in a line */

/* Compiled without contraction: only fma_floats makes one operation of a product and a sum, so all compilers
 * and processors round alike. */

/* Loads and stores need no alignment. */
typedef float floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE floats all(float x) { return x - (floats){}; }
INLINE floats load(const float *from) { return *(const floats *)from; }
INLINE void store(float *to, floats x) { *(floats *)to = x; }
INLINE floats choose(ints mask, floats a, floats b) { return (floats)(((ints)a & mask) | ((ints)b & ~mask)); }
#ifdef __AVX512F__
INLINE floats larger(floats a, floats b) { return (floats)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE floats smaller(floats a, floats b) { return (floats)_mm512_min_ps((__m512)a, (__m512)b); }
#else
INLINE floats larger(floats a, floats b) { return (floats)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE floats smaller(floats a, floats b) { return (floats)_mm256_min_ps((__m256)a, (__m256)b); }
#endif
INLINE floats magnitude(floats x) { return (floats)((ints)x & 0x7fffffff); }
INLINE ints nearest(floats x) {
#ifdef __AVX512F__
    return (ints)_mm512_cvtps_epi32((__m512)x);
#else
    return (ints)_mm256_cvtps_epi32((__m256)x);
#endif
}

/* The lowest byte of each number, for numbers from 0 to 255. */
INLINE void store_bytes(char *to, ints x) {
#ifdef __AVX512F__
    _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8((__m512i)x));
#else
    __m256i words = _mm256_packus_epi32((__m256i)x, (__m256i)x);
    __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(words, words),
                                                _mm256_setr_epi32(0, 4, 0, 0, 0, 0, 0, 0));
    _mm_storel_epi64((__m128i *)to, _mm256_castsi256_si128(bytes));
#endif
}

INLINE floats fma_floats(floats a, floats b, floats c) { /* a b + c, rounded once */
#ifdef __AVX512F__
    return (floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
    return (floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#endif
}

/* Sums are kept in lines, 16 numbers apart, and their halves are added in a fixed order: a sum is the same to
 * the last bit, however wide the registers are. 8-bit activations need that, because one that is rounded the
 * other way changes every number after it. */
typedef struct {
    floats part[VECTORS];
} line;

INLINE float sum_of(line x) {
    float sums[LINE];
    for (int v = 0; v < VECTORS; v++) store(sums + v * LANES, x.part[v]);
    for (int half = LINE / 2; half; half /= 2)
        for (int i = 0; i < half; i++) sums[i] += sums[i + half];
    return sums[0];
}

INLINE float largest_of(floats x) {
    float largest = x[0];
    for (int i = 1; i < LANES; i++) largest = largest < x[i] ? x[i] : largest;
    return largest;
}

/* e^x to about 2e-7: 2^n e^r, |r| <= ln 2 / 2, e^r by its Taylor series to r^7; 0 for x <= -87. */
INLINE floats exponential(floats x) {
    floats below = all(-87.0f);
    x = larger(below, x); /* NaN stays NaN */
    ints n = nearest(x * 1.44269504f);
    floats whole = __builtin_convertvector(n, floats);
    floats r = fma_floats(whole, all(-0.693359375f), x); /* ln 2 in two parts (Cephes, expf) */
    r = fma_floats(whole, all(2.12194440e-4f), r);
    floats e = fma_floats(r, all(1 / 5040.0f), all(1 / 720.0f));
    e = fma_floats(e, r, all(1 / 120.0f));
    e = fma_floats(e, r, all(1 / 24.0f));
    e = fma_floats(e, r, all(1 / 6.0f));
    e = fma_floats(e, r, all(0.5f));
    e = fma_floats(e, r, all(1.0f));
    e = fma_floats(e, r, all(1.0f));
    return (floats)(((ints)e + (n << 23)) & ~(x <= below));
}

/* x (1 + erf(x / sqrt 2)) / 2, erf to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26). */
INLINE floats gelu(floats x) {
    floats z = magnitude(x) * 0.70710678f;
    floats t = 1.0f / fma_floats(z, all(0.3275911f), all(1.0f));
    floats series = fma_floats(t, all(1.061405429f), all(-1.453152027f));
    series = fma_floats(series, t, all(1.421413741f));
    series = fma_floats(series, t, all(-0.284496736f));
    series = fma_floats(series, t, all(0.254829592f)) * t;
    floats rest = series * exponential(-z * z); /* 1 - erf z */
    floats half = 0.5f * x * rest;
    return choose(x < 0.0f, half, x - half);
}

/* The nearest bf16 number, ties to even. */
INLINE floats rounded(floats x) {
    ints bits = (ints)x;
    return (floats)((bits + 0x7fff + ((bits >> 16) & 1)) & (int32_t)0xffff0000);
}

/* Swap the two numbers of each pair. */
INLINE floats pairs_turned(floats x) {
#ifdef __AVX512F__
    return (floats)_mm512_permute_ps((__m512)x, 0xb1);
#else
    return (floats)_mm256_permute_ps((__m256)x, 0xb1);
#endif
}

/* The upper halves of numbers, rounded to nearest, ties to even; NaN stays NaN. `count` is a multiple of 16. */
INLINE void store_bf16(uint16_t *to, const float *from, int count) {
#ifdef __AVX512BF16__
    for (int i = 0; i < count; i += LINE)
        _mm256_storeu_si256((__m256i *)(to + i), (__m256i)_mm512_cvtneps_pbh((__m512)load(from + i)));
    return;
#endif
    for (int i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, from + i, 4);
        uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        to[i] = (bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : rounded;
    }
}

#endif
