/* The forward pass of an XLM-RoBERTa or BERT encoder: from packed texts to the states of their tokens. */

#define _GNU_SOURCE
#include "attention.h"
#include <sys/mman.h>

#define LARGE_PAGE ((size_t)2 << 20)

typedef struct {
    Linear joined; /* query, key, value */
    Linear attended, grown, shrunk;
    const float *attention_gain, *attention_bias, *output_gain, *output_bias; /* (width) */
} Layer;

typedef struct {
    int32_t layers, width, inner, heads;
    int32_t kind, planes;
    int32_t attention_kind;
    float epsilon;
    const float *gain, *bias; /* (width), of the norm after the embeddings */
    const Layer *layer;
} Encoder;

typedef struct {
    const Encoder *encoder;
    float *states; /* (tokens, width), in and out */
    int tokens;
    int firsts; /* whether only each text's first token is wanted: the last layer skips the others */
    float *projected, *wide; /* (3 width / 16, tokens, 16); (tokens, inner), also (tokens, width) */
    Rows rows, inner_rows;
    Attention attention;
} Forward;

#define ROWS_AT_A_TIME 4

/* A phase over `tokens` rows: normalise them in place, if there is a gain, and make words for `next`. */
static void over_rows(Member *me, const Forward *f, int tokens, float *x, int count, const float *gain,
                      const float *bias, const Linear *next, Rows *to) {
    Numbers numbers = {f->encoder->kind, f->encoder->planes};
    for (int task; (task = take(me)) * ROWS_AT_A_TIME < tokens;)
        for (int row = task * ROWS_AT_A_TIME; row < tokens && row < (task + 1) * ROWS_AT_A_TIME; row++) {
            float *from = x + (size_t)row * count;
            if (gain) norm(from, count, gain, bias, f->encoder->epsilon);
            if (next) make_words(numbers, next, from, count, to, row);
        }
    meet(me);
}

/* A phase that moves the row of each text's first token to the front: row n becomes that of text n. */
static void keep_firsts(Member *me, const Forward *f) {
    size_t d = f->encoder->width;
    if (take(me) == 0)
        for (int text = 0; text < f->attention.texts; text++) {
            size_t first = f->attention.starts[text];
            memmove(f->wide + text * d, f->wide + first * d, d * sizeof(float));
            memmove(f->states + text * d, f->states + first * d, d * sizeof(float));
        }
    meet(me);
}

static void layer(Member *me, Forward *f, const Layer *l, const Layer *after) {
    const Encoder *e = f->encoder;
    Numbers numbers = {e->kind, e->planes};
    size_t d = e->width;
    int tokens = f->tokens;
    product(me, numbers, &l->joined, &f->rows, tokens,
            &(Out){.to = f->projected, .row = LINE, .panel = (size_t)tokens * LINE});
    arrange(me, &f->attention);
    attend(me, &f->attention, f->wide, d);
    if (!after && f->firsts) {
        keep_firsts(me, f);
        tokens = f->attention.texts;
    }
    over_rows(me, f, tokens, f->wide, e->width, NULL, NULL, &l->attended, &f->rows);
    product(me, numbers, &l->attended, &f->rows, tokens,
            &(Out){.to = f->states, .row = d, .panel = LINE, .residual = f->states});
    over_rows(me, f, tokens, f->states, e->width, l->attention_gain, l->attention_bias, &l->grown, &f->rows);
    if (e->kind == BF16) {
        product(me, numbers, &l->grown, &f->rows, tokens, &(Out){.gelu = 1, .words = &f->inner_rows});
    } else {
        product(me, numbers, &l->grown, &f->rows, tokens,
                &(Out){.to = f->wide, .row = e->inner, .panel = LINE, .gelu = 1});
        over_rows(me, f, tokens, f->wide, e->inner, NULL, NULL, &l->shrunk, &f->inner_rows);
    }
    product(me, numbers, &l->shrunk, &f->inner_rows, tokens,
            &(Out){.to = f->states, .row = d, .panel = LINE, .residual = f->states});
    over_rows(me, f, tokens, f->states, e->width, l->output_gain, l->output_bias,
              after ? &after->joined : NULL, &f->rows);
}

static void run(Member *me, void *given) {
    Forward *f = given;
    const Encoder *e = f->encoder;
    over_rows(me, f, f->tokens, f->states, e->width, e->gain, e->bias, &e->layer[0].joined, &f->rows);
    for (int n = 0; n < e->layers; n++)
        layer(me, f, &e->layer[n], n + 1 < e->layers ? &e->layer[n + 1] : NULL);
}

#define PHASES(layers) (3 + 12 * (layers))

static void *part(char **at, size_t bytes) {
    char *found = *at;
    *at += (bytes + 63) / 64 * 64;
    return found;
}

/* states (tokens, width): sums of embeddings in, states of the last layer out. With `firsts`, row n is the
 * state of text n's first token, and the other rows mean nothing. starts (texts + 1). If it `goes_first`,
 * other forward passes give way. Returns 0, -1 if there is not enough memory, -2 if these instructions do not
 * support bf16. */
int forward(const Encoder *e, float *states, const int32_t *starts, int32_t texts, int32_t firsts,
            int32_t threads, int32_t goes_first) {
    if (e->kind == BF16 && !HAS_BF16) return -2;
    int tokens = starts[texts], blocks = 0, places = 0;
    for (int t = 0; t < texts; t++) {
        int length = starts[t + 1] - starts[t];
        blocks += (length + QUERIES - 1) / QUERIES;
        places += (length + LINE - 1) / LINE;
    }
    size_t d = e->width, rows_stride = d * word_bytes(e->kind) + 64,
           inner_stride = e->inner * word_bytes(e->kind) + 64;
    enum kind kind = e->attention_kind == BF16 && HAS_BF16 ? BF16 : F32;
    size_t key_bytes = (size_t)places * LINE * d * word_bytes(kind);
    size_t scratch = ATTENTION_BYTES(d / e->heads) > SUMS_BYTES ? ATTENTION_BYTES(d / e->heads) : SUMS_BYTES;
    size_t sizes[] = {
        (size_t)tokens * 3 * d * 4,
        (size_t)tokens * (e->inner > e->width ? e->inner : e->width) * 4,
        tokens * e->planes * rows_stride,
        tokens * e->planes * inner_stride,
        (size_t)tokens * 8,
        (size_t)tokens * 8,
        key_bytes,
        e->attention_kind == F32 ? 0 : key_bytes,
        (texts + 1) * sizeof(int32_t),
        blocks * 2 * sizeof(int32_t),
    };
    size_t all_bytes = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) all_bytes += (sizes[i] + 63) / 64 * 64;
    /* Large pages: a batch would take thousands of small ones, each with a page fault of its own. */
    all_bytes = (all_bytes + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    char *memory = aligned_alloc(LARGE_PAGE, all_bytes), *at = memory;
    if (!memory) return -1;
    madvise(memory, all_bytes, MADV_HUGEPAGE);
    Forward f = {.encoder = e, .states = states, .tokens = tokens, .firsts = firsts};
    f.projected = part(&at, sizes[0]);
    f.wide = part(&at, sizes[1]);
    f.rows = (Rows){part(&at, sizes[2]), rows_stride, NULL};
    f.inner_rows = (Rows){part(&at, sizes[3]), inner_stride, NULL};
    f.rows.scales = part(&at, sizes[4]);
    f.inner_rows.scales = part(&at, sizes[5]);
    f.attention = (Attention){.kind = kind,
                              .imitates = e->attention_kind == BF16 && kind == F32,
                              .tokens = tokens,
                              .texts = texts,
                              .heads = e->heads,
                              .size = e->width / e->heads,
                              .starts = starts,
                              .blocks = blocks,
                              .projected = f.projected};
    f.attention.keys = part(&at, sizes[6]);
    f.attention.values = sizes[7] ? part(&at, sizes[7]) : NULL;
    f.attention.places = part(&at, sizes[8]);
    f.attention.tasks = part(&at, sizes[9]);
    int block = 0, place = 0;
    for (int t = 0; t < texts; t++) {
        f.attention.places[t] = place;
        place += (starts[t + 1] - starts[t] + LINE - 1) / LINE;
        for (int first = 0; first < starts[t + 1] - starts[t]; first += QUERIES, block++) {
            f.attention.tasks[2 * block] = t;
            f.attention.tasks[2 * block + 1] = first;
        }
    }
    f.attention.places[texts] = place;
    int failed = together(threads, goes_first, PHASES(e->layers), scratch, run, &f);
    free(memory);
    return failed;
}

typedef struct {
    Numbers numbers;
    const Linear *linear;
    const float *x;
    Rows rows;
    int tokens;
    Out out;
} Alone;

static void run_alone(Member *me, void *given) {
    Alone *a = given;
    for (int token; (token = take(me)) < a->tokens;)
        make_words(a->numbers, a->linear, a->x + (size_t)token * a->linear->inputs, a->linear->inputs,
                   &a->rows, token);
    meet(me);
    product(me, a->numbers, a->linear, &a->rows, a->tokens, &a->out);
}

/* One linear layer alone: x (tokens, inputs) to y (tokens, outputs). Returns 0, or -1 without memory. */
int multiply(int32_t kind, int32_t planes, const Linear *linear, const float *x, int32_t tokens, float *y,
             int32_t threads, int32_t goes_first) {
    size_t stride = (size_t)linear->inputs * word_bytes(kind) + 64, scales = (size_t)tokens * 8;
    char *words = malloc(scales + tokens * planes * stride);
    if (!words) return -1;
    Alone alone = {{kind, planes},
                   linear,
                   x,
                   {words + scales, stride, (float *)words},
                   tokens,
                   {.to = y, .row = linear->outputs, .panel = LINE}};
    int failed = together(threads, goes_first, 2, SUMS_BYTES, run_alone, &alone);
    free(words);
    return failed;
}
