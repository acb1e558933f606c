/* A graph of 2^20 vertices in compressed rows: breadth-first search, then ranks of pages. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
enum { N = 1 << 20, D = 16 };
static uint64_t x = 88172645463325252u;
static uint32_t rnd(void) { x ^= x << 13; x ^= x >> 7; x ^= x << 17; return x >> 20; }
int main(int c, char **v) {
    uint32_t *edge = malloc(sizeof *edge * N * D);
    for (long i = 0; i < (long)N * D; i++) edge[i] = rnd() % N;
    if (c > 1 && !strcmp(v[1], "search")) {
        uint32_t *depth = malloc(sizeof *depth * N), *queue = malloc(sizeof *queue * N);
        long sum = 0, reached = 0;
        for (int s = 0; s < 3; s++) {
            memset(depth, 255, sizeof *depth * N);
            long head = 0, tail = 0;
            uint32_t start = rnd() % N;
            depth[start] = 0, queue[tail++] = start;
            while (head < tail) {
                uint32_t u = queue[head++];
                for (int k = 0; k < D; k++) {
                    uint32_t w = edge[(long)u * D + k];
                    if (depth[w] == UINT32_MAX) depth[w] = depth[u] + 1, queue[tail++] = w;
                }
            }
            reached += tail, sum += depth[queue[tail - 1]];
        }
        printf("%ld %ld\n", reached, sum);
    } else {
        double *rank = malloc(sizeof *rank * N), *next = malloc(sizeof *next * N);
        for (long i = 0; i < N; i++) rank[i] = 1.0 / N;
        for (int r = 0; r < 3; r++) {
            for (long i = 0; i < N; i++) next[i] = 0.15 / N;
            for (long i = 0; i < N; i++) for (int k = 0; k < D; k++) next[edge[i * D + k]] += 0.85 * rank[i] / D;
            double *t = rank; rank = next; next = t;
        }
        double s = 0; for (long i = 0; i < N; i += 4097) s += rank[i];
        printf("%.9g\n", s);
    }
}
